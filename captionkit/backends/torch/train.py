"""One training run on torch, told from top to bottom."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, TrainingArguments

from captionkit.backends.torch import sharding
from captionkit.backends.torch.batches import TrainingBatches
from captionkit.backends.torch.device import DTYPES, choose_device, choose_precision
from captionkit.backends.torch.families import family_of
from captionkit.backends.torch.processes import connect
from captionkit.backends.torch.quiet import quiet_transformers
from captionkit.backends.torch.trainer import CaptionTrainer
from captionkit.backends.torch.weights import load_model, named_as_saved, new_model
from captionkit.checkpoints import move_durably, removed_unless_written
from captionkit.data.loader import training_rows
from captionkit.data.preprocess import Preprocessor
from captionkit.decoding_defaults import generation_values
from captionkit.errors import ConfigError
from captionkit.freezing import frozen_tensors
from captionkit.models import has_weights, load_tokenizer
from captionkit.recipe import TrainingConfig
from captionkit.types import TrainingJob

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
# the Trainer's Adafactor takes our learning rate: no relative steps, no scale of the parameters
_OPTIMIZERS: dict[str, dict[str, str]] = {"adamw": {}, "adafactor": {"optim": "adafactor"}}


def train(job: TrainingJob) -> Path:
    """Train as the job says; writes checkpoints and, at the end, the model to `job.output_dir`."""
    with quiet_transformers():
        return _train(job)


def _train(job: TrainingJob) -> Path:
    recipe, options = job.recipe, job.options
    device = choose_device(options.device)
    precision = choose_precision(recipe.training.precision, device)
    args = training_arguments(job, device, precision)
    connect()  # after the Trainer's arguments, which connect what gradients take

    tokenizer = load_tokenizer(job.model, recipe.trust_remote_code)
    preprocess = Preprocessor.from_checkpoint(job.model)
    if has_weights(job.model):
        model = load_model(job.model, recipe.trust_remote_code)
    else:
        model = new_model(job.model, tokenizer, recipe.training.seed, recipe.trust_remote_code)
    family = family_of(model.config.model_type)
    preprocess.require_size(family.image_size(model.config), job.model)
    freeze(model, recipe.training.freeze)
    if recipe.training.gradient_checkpointing:
        checkpoint_activations(model)
    if options.sharded:
        sharding.gather_by_layer(args, model)
    values = generation_values(model.generation_config.to_diff_dict(), recipe.decoding)
    values.pop("_from_model_config", None)  # with it, what transformers does not know is dropped
    model.generation_config = GenerationConfig.from_dict(values)

    order, read = training_rows(
        job.train, recipe, tokenizer, family.text_limit(model.config), preprocess,
        args.per_device_train_batch_size, args.process_index, args.world_size, family.OWN_START,
    )  # fmt: skip
    size = (preprocess.height, preprocess.width)
    batches = TrainingBatches(
        order, read, recipe, tokenizer.pad_token_id, size, family.start_id(model)
    )
    trainer = CaptionTrainer(
        job, tokenizer, preprocess, batches,
        autocast=None if precision == "fp32" else DTYPES[precision],
        model=model,
        args=args,
    )  # fmt: skip
    if job.resume_from:
        trainer.restore(job.resume_from)
    with closing(batches):
        trainer.train(resume_from_checkpoint=str(job.resume_from) if job.resume_from else None)

    if not trainer.interrupted:
        _load_best(trainer, job.output_dir)
        _save_final(trainer, job.output_dir)
        trainer.emit("end")
    return job.output_dir


def training_arguments(job: TrainingJob, device: torch.device, precision: str) -> TrainingArguments:
    """The recipe in the Trainer's words. Raises ConfigError for a batch that does not divide."""
    training, options = job.recipe.training, job.options
    args = TrainingArguments(
        output_dir=str(job.output_dir),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        gradient_accumulation_steps=training.accumulation_steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=_SCHEDULES[training.schedule],
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        **_OPTIMIZERS[training.optimizer],
        max_grad_norm=training.max_grad_norm or math.inf,  # its norm is needed in any case
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device.type == "cpu",
        seed=training.seed,
        torch_compile=options.torch_compile,
        # what core decides, shows and keeps
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        **(sharding.ARGUMENTS if options.sharded else {}),
        remove_unused_columns=False,
        label_names=["labels"],
        log_level="error",
    )
    # several GPUs in one process would mean DataParallel; `torchrun` uses them all
    args._n_gpu = min(args.n_gpu, 1)
    args.per_device_train_batch_size = batch_size_per_pass(training, args.world_size)
    return args


def batch_size_per_pass(training: TrainingConfig, processes: int) -> int:
    """Images in one pass of one process. Raises ConfigError where that is not whole."""
    passes = processes * training.accumulation_steps
    if training.batch_size % passes:
        raise ConfigError(
            f"batch_size={training.batch_size} does not divide by {processes} processes x "
            f"{training.accumulation_steps} accumulation steps. Choose a multiple of {passes}."
        )
    return training.batch_size // passes


def freeze(model: Any, patterns: Sequence[str]) -> None:
    """Stop training the tensors whose names match, and those that no caption depends on.

    They get no gradient and no optimizer state, and where nothing before them is trained either no
    activations are kept for them. Raises ConfigError for a pattern without any tensor.
    """
    tensors, config = named_as_saved(model), model.config
    unused = family_of(config.model_type).unused(config)
    for name in frozen_tensors(list(tensors), patterns, config.model_type, unused):
        tensors[name].requires_grad = False


def checkpoint_activations(model: Any) -> None:
    """Keep a layer's inputs alone, and compute the rest again in the backward pass."""
    # renamed in transformers 5.2x
    new_name = hasattr(model, "activation_checkpointing_enable")
    name = "activation_checkpointing" if new_name else "gradient_checkpointing"
    getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})


def _load_best(trainer: CaptionTrainer, output_dir: Path) -> None:
    best = trainer.plan.best_step
    if not trainer.plan.keep_best:
        return
    if best is None:  # the best checkpoint of a resumed run is gone
        trainer.evaluate()
        return
    if best == trainer.state.global_step:
        return
    weights = load_model(output_dir / f"checkpoint-{best}", trainer.job.recipe.trust_remote_code)
    trainer.load_weights(weights)


def _save_final(trainer: CaptionTrainer, output_dir: Path) -> None:
    # beside, then moved: a crash while writing leaves no half of a model in the run's folder
    temporary = output_dir / ".saving"
    main = trainer.is_world_process_zero()
    with removed_unless_written(temporary, "The model") if main else nullcontext():
        if main:
            shutil.rmtree(temporary, ignore_errors=True)
        trainer.save_model(str(temporary), _internal_call=True)
        if main:
            move_durably(temporary, output_dir)
