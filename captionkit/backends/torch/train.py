"""One training run on torch, told from top to bottom."""

from __future__ import annotations

import fnmatch
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from captionkit.backends.torch.batches import Collate, EpochOrder, TrainingExamples
from captionkit.backends.torch.device import DTYPES, choose_device, choose_precision
from captionkit.backends.torch.families import family_of
from captionkit.backends.torch.options import TorchOptions
from captionkit.backends.torch.quiet import quiet_transformers
from captionkit.backends.torch.trainer import CaptionTrainer
from captionkit.backends.torch.weights import load_model, named_as_saved, new_model
from captionkit.data.captions import encode_captions
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ConfigError
from captionkit.models import has_weights, load_tokenizer
from captionkit.recipe import TrainingConfig
from captionkit.types import TrainingJob

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def train(job: TrainingJob) -> Path:
    """Train as the job says; writes checkpoints and, at the end, the model to `job.output_dir`."""
    with quiet_transformers():
        return _train(job)


def _train(job: TrainingJob) -> Path:
    recipe, options = job.recipe, job.options
    device = choose_device(options.device)
    precision = choose_precision(recipe.training.precision, device)
    args = training_arguments(job, device, precision)

    tokenizer = load_tokenizer(job.model, recipe.trust_remote_code)
    preprocess = Preprocessor.from_checkpoint(job.model)
    if has_weights(job.model):
        model = load_model(job.model, recipe.trust_remote_code)
    else:
        model = new_model(job.model, tokenizer, recipe.training.seed, recipe.trust_remote_code)
    freeze(model, recipe.training.freeze)
    if options.gradient_checkpointing:
        # renamed in transformers 5.2x
        new_name = hasattr(model, "activation_checkpointing_enable")
        name = "activation_checkpointing" if new_name else "gradient_checkpointing"
        getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
    model.generation_config.update(
        max_length=None,
        max_new_tokens=recipe.decoding.max_new_tokens,
        num_beams=recipe.decoding.num_beams,
    )

    # of several processes all have as many batches; one alone needs no filling
    multiple = args.per_device_train_batch_size * args.world_size if args.world_size > 1 else 1
    order = EpochOrder(job.train, recipe.data.captions, recipe.training.seed, multiple)
    examples = TrainingExamples(
        job.train, _token_ids(job, model, tokenizer), preprocess, len(order)
    )
    trainer = CaptionTrainer(
        job, preprocess, order,
        autocast=None if precision == "fp32" else DTYPES[precision],
        model=model,
        args=args,
        train_dataset=examples,
        data_collator=Collate(
            tokenizer.pad_token_id,
            (preprocess.height, preprocess.width),
            family_of(model.config.model_type).start_id(model),
        ),
        processing_class=tokenizer,
    )  # fmt: skip
    if job.resume_from:
        trainer.restore(job.resume_from)
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
        max_grad_norm=training.max_grad_norm,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device.type == "cpu",
        seed=training.seed,
        torch_compile=options.torch_compile,
        dataloader_num_workers=_workers(options, device),
        dataloader_persistent_workers=_workers(options, device) > 0,
        dataloader_pin_memory=device.type == "cuda",
        # what core decides, shows and keeps
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
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


def freeze(model: Any, patterns: tuple[str, ...]) -> None:
    """Stop training the tensors whose names match. Raises ConfigError for a pattern without any."""
    tensors = named_as_saved(model)
    for pattern in patterns:
        matched = [p for name, p in tensors.items() if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            names = ", ".join(list(tensors)[:4])
            raise ConfigError(
                f"freeze pattern {pattern!r} matches no tensor. Names look like: {names}, ..."
            )
        for parameter in matched:
            parameter.requires_grad = False
    for name, parameter in tensors.items():  # without a gradient DDP would wait for one
        if name.startswith(family_of(model.config.model_type).UNUSED):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("freeze leaves nothing to train. Use fewer patterns.")


def _token_ids(job: TrainingJob, model: Any, tokenizer: Any) -> list[list[list[int]]]:
    """Token ids by image and caption; a caption too long for the model is a DataError."""
    captions = [job.train.captions_of(i) for i in range(len(job.train))]
    image_ids = job.train.image_ids
    encoded = encode_captions(
        tokenizer,
        [text for texts in captions for text in texts],
        max_tokens=job.recipe.training.max_caption_tokens,
        limit=family_of(model.config.model_type).text_limit(model.config),
        names=[image_ids[i] for i, texts in enumerate(captions) for _ in texts],
    )
    ids = iter(encoded)
    return [[next(ids) for _ in texts] for texts in captions]


def _workers(options: TorchOptions, device: torch.device) -> int:
    if options.workers is not None:
        return options.workers
    # on a CPU the model itself keeps all cores busy
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)


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
    trainer.model.load_state_dict(weights.state_dict())


def _save_final(trainer: CaptionTrainer, output_dir: Path) -> None:
    # beside, then moved: a crash while writing leaves no half of a model in the run's folder
    temporary = output_dir / ".saving"
    if trainer.is_world_process_zero():
        shutil.rmtree(temporary, ignore_errors=True)
    trainer.save_model(str(temporary), _internal_call=True)
    if trainer.is_world_process_zero():
        for path in temporary.iterdir():
            os.replace(path, output_dir / path.name)
        temporary.rmdir()
