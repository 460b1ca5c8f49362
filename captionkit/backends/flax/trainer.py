"""The training loop: updates, and what the plan says is due after each."""

from __future__ import annotations

import functools
import json
import math
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from captionkit import checkpoints
from captionkit.backends.flax.batches import TrainingBatches, Update
from captionkit.backends.flax.captioner import FlaxCaptioner
from captionkit.backends.flax.devices import versions
from captionkit.backends.flax.model_folder import Model, write_config_files
from captionkit.backends.flax.optimizer import Trained
from captionkit.backends.flax.parallel import Votes
from captionkit.backends.flax.state import BackgroundWriter, read_state, write_state
from captionkit.backends.flax.step import (
    Metrics,
    TrainState,
    initial_state,
    train_step,
)
from captionkit.divergence import MOST_OVERFLOWS, divergence, left_out
from captionkit.errors import DataError, DivergedError, ImageError
from captionkit.models import has_weights
from captionkit.plan import Plan
from captionkit.processes import connected, is_main_process
from captionkit.schedule import learning_rate
from captionkit.types import TrainEvent, TrainingJob


class CaptionTrainer:
    """Trains the model of one `TrainingJob`.

    model: whose weights are the first ones; `params` holds those of the moment.
    batches: the updates of the run. logits: see `train_step`. parallel: the devices, see
    `parallel`.
    """

    def __init__(
        self,
        job: TrainingJob,
        model: Model,
        batches: TrainingBatches,
        trained: Trained,
        logits: Any,
        parallel: Any,
        precision: str,
    ):
        training = job.recipe.training
        self.job = job
        self.model = model
        self.batches = batches
        self.trained = trained
        self.parallel = parallel
        self.votes = Votes(parallel.devices)
        self.total_steps = batches.total_steps
        self.plan = Plan(
            job.recipe, batches.steps_per_epoch, self.total_steps,
            has_validation=job.evaluator is not None,
            higher_is_better=job.higher_is_better,
            history=job.history,
        )  # fmt: skip
        self.plan.forget_best_if_damaged(job.output_dir)
        step = functools.partial(train_step, logits=logits, training=training, trained=trained)
        self.train_step = parallel.compile(step)
        self.key = jax.random.key(training.seed)
        self.writer = BackgroundWriter()
        self.scales_loss = precision == "fp16"
        self.processes = connected()
        self.interrupted = False
        self.stop_agreed = False
        self.step = 0
        self.loss_sum = 0.0  # of the updates since the last log
        self.steps_in_sum = 0
        self.overflows = 0
        self.overflows_in_a_row = 0
        self.images_seen = 1 if job.resume_from else 0
        self.running: _Running | None = None
        initial = functools.partial(
            initial_state, training=training, trained=trained, precision=precision
        )
        self.state: TrainState = (
            self._restore(job.resume_from, initial)
            if job.resume_from
            else parallel.initial(initial, model.params)
        )
        self.model = model._replace(params={})  # those of the state are the ones that count
        self.captioner = FlaxCaptioner(
            model.family, model.config, {}, model.tokenizer, model.preprocess, precision
        )

    @property
    def params(self) -> dict[str, Any]:
        """The weights of this moment, on the first device, until the next update."""
        return self.parallel.on_one_device(self.state.params)

    def run(self) -> None:
        """Train to the end, or until it is asked to stop; everything is written on return."""
        job, plan = self.job, self.plan
        sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(self.state.params)]
        self.emit(
            "start",
            parameters=sum(sizes),
            trainable=self.trained.count,
            from_scratch=not has_weights(job.model),
            device=self.parallel.devices[0].platform,
            devices=len(self.parallel.devices),
            processes=self.processes.count,
            versions=versions(),
        )
        try:
            if job.evaluator is not None and not job.resume_from:
                self.captioner.params = self.params
                if is_main_process():
                    job.evaluator.preview(self.captioner)
                # what it made of them, of a mesh a copy, is not needed while training
                self.captioner.params = {}
            if job.resume_from and plan.evaluation_missed(self.step, job.history):
                self.evaluate()
            with closing(self.batches.updates(self.step)) as updates:
                for update in updates:
                    self._update(update)
                    if self._finished_after_what_is_due():
                        break
            self._settle()
            self.writer.wait()
        finally:
            self.writer.close()

    # ---- one update ----------------------------------------------------------------------------

    def _update(self, update: Update) -> None:
        if self.processes.count == 1:
            self._report_skipped(update.skipped)
        rate = learning_rate(self.job.recipe.training, self.step, self.total_steps)
        stop = self.processes.count > 1 and self.job.should_stop()
        votes = self.votes.cast([len(update.skipped), stop])
        self.state, metrics = self.train_step(self.state, update.arrays, np.float32(rate), self.key)
        self._settle()  # the update before, while this one runs
        self.step += 1
        self.running = _Running(
            self.step, rate, metrics, update.image_ids, update.images, update.skipped, votes
        )
        self.emit("step", images=update.images)
        if not self.step % self.batches.steps_per_epoch and not self.images_seen:
            self._settle()
            if not self.images_seen:
                raise DataError(
                    f"None of the training images of {self.job.train.name} could be read."
                )

    def _report_skipped(self, skipped: list[tuple[str, str]]) -> None:
        for image_id, reason in skipped:
            if self.job.recipe.data.on_bad_image == "stop":
                raise ImageError(
                    f"{reason.rstrip('.')}. on_bad_image='skip' goes on without such images"
                    f"{'; resume, from the last checkpoint' if self.step else ''}."
                )
            self.emit("skip", image_id=image_id, reason=reason)

    def _settle(self) -> None:
        """Fetch the metrics of the update that was begun last, and log if it is due after it."""
        if self.running is None:
            return
        step, rate, metrics, image_ids, images, skipped, votes = self.running
        self.running = None
        self._count(images, skipped, votes)
        values = {name: float(value) for name, value in metrics.items()}
        loss, overflow = values["loss_sum"] / max(values["tokens"], 1.0), bool(values["overflow"])
        if not math.isfinite(loss):
            raise self._diverged(f"loss became {loss}", step, rate, image_ids)
        self.loss_sum += loss
        self.steps_in_sum += 1
        self.overflows += overflow
        self.overflows_in_a_row = (self.overflows_in_a_row + 1) * overflow
        if self.overflows_in_a_row == MOST_OVERFLOWS:
            what = f"gradients overflowed {MOST_OVERFLOWS} times in a row"
            raise self._diverged(what, step, rate, image_ids)
        if overflow and not self.scales_loss:  # where it does, that is how it finds the scale
            warnings.warn(left_out(step, values["grad_norm"], image_ids), stacklevel=2)
        if self.plan.log_due(step):
            self._log(step, rate, values["grad_norm"])

    def _diverged(self, what: str, step: int, rate: float, image_ids: list[str]) -> DivergedError:
        self.writer.wait()  # it names the last checkpoint
        return divergence(what, step, rate, image_ids, self.job.output_dir)

    def _count(self, images: int, own: list[tuple[str, str]], votes: Any) -> None:
        """What all processes say of an update: the images that could be read, whether to stop."""
        skipped, stop = self.votes.counted(votes)
        self.images_seen += images + len(own) - skipped
        self.stop_agreed = bool(stop)
        if skipped and self.processes.count > 1:  # each knows its own, and the first reports all
            everyones = self.processes.gather(json.dumps(own).encode())
            self._report_skipped(
                [(i, why) for listed in everyones for i, why in json.loads(listed)]
            )

    def _log(self, step: int, rate: float, grad_norm: float) -> None:
        """Report the mean loss since the last log, exact also across a resumption."""
        loss = self.loss_sum / self.steps_in_sum
        values: dict[str, Any] = {"loss": loss, "learning_rate": rate}
        if math.isfinite(grad_norm):
            values["grad_norm"] = grad_norm
        if self.overflows:
            values["overflows"] = self.overflows
        self.loss_sum, self.steps_in_sum, self.overflows = 0.0, 0, 0
        self.emit("log", step, **values)

    # ---- evaluating, saving --------------------------------------------------------------------

    def _finished_after_what_is_due(self) -> bool:
        """Evaluate and save as the plan says; whether the run ends here, before its last step."""
        self.writer.raise_failure()
        # several processes stop after the same update: one later than they were asked to
        stop = self.stop_agreed if self.processes.count > 1 else self.job.should_stop()
        evaluate = self.plan.evaluation_due(self.step) and not stop
        save = self.plan.save_due(self.step) or stop
        if evaluate or save:
            self._settle()
        if evaluate:
            save = self.evaluate() or save
        if save:
            self.save()
        self.interrupted = stop
        return stop or (evaluate and self.plan.out_of_patience)

    def evaluate(self) -> bool:
        """Hand the weights of this moment to core's Evaluator; whether they are to be kept."""
        evaluator = self.job.evaluator
        assert evaluator is not None
        self.captioner.params = self.params
        values = evaluator(self.captioner)
        self.captioner.params = {}
        self.emit("evaluate", **values)
        prefixed = {f"eval_{name}": value for name, value in values.items()}
        best = self.plan.evaluated(self.step, prefixed)
        if is_main_process() and (best or not self.plan.keep_best):
            evaluator.keep()
        return best and self.plan.keep_best

    def save(self) -> None:
        """Copy the state, and write it to checkpoint-N while training goes on."""
        self.writer.wait()
        state = self.parallel.on_host(self.state)
        if not is_main_process():
            return
        folder = self.job.output_dir / f"checkpoint-{self.step}"
        numbers = {
            "loss_sum": self.loss_sum,
            "steps": self.steps_in_sum,
            "overflows": [self.overflows, self.overflows_in_a_row],
        }
        model = self.model._replace(params=state.params)
        with checkpoints.removed_unless_written(folder):
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            checkpoints.begin(folder, size)
            write_config_files(folder, model, self.job.recipe.decoding)
        keep, best_step = self.job.recipe.training.save_total_limit, self.plan.best_step

        def write() -> None:
            with checkpoints.removed_unless_written(folder):
                model.family.save_params(folder, model.params, model.config)
                write_state(folder, state, numbers)
                checkpoints.write_manifest(folder)
            checkpoints.prune(folder.parent, keep, best_step)

        self.writer.submit(write)
        self.emit("save", path=str(folder))

    def _restore(self, checkpoint: Path, initial: Callable[[Any], TrainState]) -> TrainState:
        like = jax.eval_shape(initial, self.model.params)._replace(params=self.model.params)
        state, numbers = read_state(checkpoint, like)
        self.step = int(state.step)
        self.loss_sum = numbers["loss_sum"]
        self.steps_in_sum = numbers["steps"]
        self.overflows, self.overflows_in_a_row = numbers["overflows"]
        return self.parallel.place(state)

    def emit(self, kind: Any, step: int | None = None, /, **values: Any) -> None:
        """Report to core, of the update that was begun last or of another.

        The events of processes other than the first reach nobody.
        """
        step = self.step if step is None else step
        epoch = self.batches.epoch_at(step)
        self.job.on_event(TrainEvent(kind, step, self.total_steps, epoch, values))


class _Running(NamedTuple):
    """An update whose metrics were not fetched yet."""

    step: int
    learning_rate: float
    metrics: Metrics
    image_ids: list[str]
    images: int
    skipped: list[tuple[str, str]]
    votes: Any
