"""One training run in JAX, told from top to bottom."""

from __future__ import annotations

import shutil
from pathlib import Path

from captionkit.backends.flax.batches import TrainingBatches
from captionkit.backends.flax.devices import DTYPES, choose_devices, choose_precision
from captionkit.backends.flax.model_folder import Model, open_model, write_config_files
from captionkit.backends.flax.optimizer import flatten, trained_tensors
from captionkit.backends.flax.parallel import parallel
from captionkit.backends.flax.step import logits_of
from captionkit.backends.flax.trainer import CaptionTrainer
from captionkit.checkpoints import move_durably, removed_unless_written
from captionkit.data.loader import training_rows
from captionkit.processes import is_main_process
from captionkit.types import TrainingJob


def train(job: TrainingJob) -> Path:
    """Train as the job says; writes checkpoints and, at the end, the model to `job.output_dir`."""
    recipe, options = job.recipe, job.options
    devices = choose_devices(options)
    precision = choose_precision(recipe.training.precision, devices[0])

    model = open_model(job.model, recipe.training.seed, recipe.trust_remote_code)
    family, config = model.family, model.config
    names = family.tensor_names(config)
    trained = trained_tensors(
        names,
        {path: leaf.shape for path, leaf in flatten(model.params).items()},
        recipe.training.freeze,
        family.untrained,
        family.model_type,
    )
    start_id, _, pad_id = family.token_ids(config)
    order, read = training_rows(
        job.train, recipe, model.tokenizer, family.text_limit(config), model.preprocess,
        recipe.training.batch_size, own_start=family.own_start,
    )  # fmt: skip
    size = (model.preprocess.height, model.preprocess.width)
    stacks = frozenset("/".join(path) for _, path, layer in names if layer is not None)
    together = parallel(devices, options.parallel, options.fsdp, stacks)
    batches = TrainingBatches(
        order, read, recipe, size, start_id, pad_id,
        len(devices), together.place_batch, together.positions,
    )  # fmt: skip
    logits = logits_of(
        family, config, model.preprocess, DTYPES[precision], recipe.training.gradient_checkpointing
    )
    trainer = CaptionTrainer(
        job, model, batches, trained, together.logits(logits), together, precision
    )
    del model  # its first weights
    trainer.run()

    if not trainer.interrupted:
        best = _best(trainer)
        if is_main_process():
            _save_final(best, job)
        trainer.emit("end")
    return job.output_dir


def _best(trainer: CaptionTrainer) -> Model:
    """The model with the weights that the run ends with."""
    best, model = trainer.plan.best_step, trainer.model
    if trainer.plan.keep_best and best is None:  # the best checkpoint of a resumed run is gone
        trainer.evaluate()
    if not trainer.plan.keep_best or best in (None, trainer.step):
        return model._replace(params=trainer.parallel.on_host(trainer.state.params))
    if not is_main_process():  # it has not waited for the checkpoint, and writes nothing
        return model
    folder = trainer.job.output_dir / f"checkpoint-{best}"
    return model._replace(params=model.family.load_params(folder, model.config))


def _save_final(model: Model, job: TrainingJob) -> None:
    # beside, then moved: a crash while writing leaves no half of a model in the run's folder
    temporary = job.output_dir / ".saving"
    with removed_unless_written(temporary, "The model"):
        shutil.rmtree(temporary, ignore_errors=True)
        write_config_files(temporary, model, job.recipe.decoding)
        model.family.save_params(temporary, model.params, model.config)
        move_durably(temporary, job.output_dir)
