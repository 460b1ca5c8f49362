"""One training run, told from top to bottom."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from captionkit import checkpoints
from captionkit.data.captions import decoder_pairs
from captionkit.data.loader import Row, read_batches, training_rows
from captionkit.divergence import MOST_OVERFLOWS, divergence, left_out
from captionkit.errors import DataError, ImageError
from captionkit.freezing import frozen_tensors
from captionkit.models import has_weights
from captionkit.plan import Plan
from captionkit.schedule import learning_rate
from captionkit.types import TrainEvent, TrainingJob
from captionkit_colours.captioner import ColoursCaptioner
from captionkit_colours.model import Model, Tensors

_STATE = "training_state"


def train(job: TrainingJob) -> Path:
    """Train as the job says; writes checkpoints and, at the end, the model to `job.output_dir`."""
    run = Run(job)
    run.train()
    if not run.interrupted:
        run.save_final()
        run.emit("end")
    return job.output_dir


class Run:
    """The state of a run: weights, moments, and what was counted since the last log."""

    def __init__(self, job: TrainingJob):
        self.job = job
        self.recipe = recipe = job.recipe
        training = recipe.training
        self.model = Model.open(job.model, training.seed, recipe.trust_remote_code)
        tensors = self.model.tensors
        frozen = frozen_tensors(list(tensors), training.freeze, self.model.config.model_type)
        self.trained = [name for name in tensors if name not in frozen]
        self.order, self.read = training_rows(
            job.train, recipe, self.model.tokenizer, self.model.config.positions,
            self.model.preprocess, training.batch_size,
        )  # fmt: skip
        per_epoch = self.order.batches_per_epoch
        self.total_steps = training.max_steps or math.ceil(training.epochs * per_epoch)
        self.plan = Plan(
            recipe, per_epoch, self.total_steps, job.evaluator is not None, job.higher_is_better,
            job.history,
        )  # fmt: skip
        self.plan.forget_best_if_damaged(job.output_dir)
        self.step, self.images_seen, self.interrupted = 0, 0, False
        self.loss_sum, self.steps_in_sum, self.left_out_in_a_row = 0.0, 0, 0
        self.moments = {
            f"{which}.{name}": np.zeros_like(tensors[name])
            for which in ("first", "second")
            for name in self.trained
        }
        if job.resume_from:
            self._restore(job.resume_from)

    def train(self) -> None:
        """Train to the last update, or until asked to stop; what is due after each is done."""
        tensors, job = self.model.tensors, self.job
        self.emit(
            "start", parameters=sum(t.size for t in tensors.values()),
            trainable=sum(tensors[name].size for name in self.trained),
            from_scratch=not has_weights(job.model), device="cpu",
            versions={"numpy": np.__version__},
        )  # fmt: skip
        if job.evaluator is not None and not job.resume_from:
            job.evaluator.preview(ColoursCaptioner(self.model))
        if job.resume_from and self.plan.evaluation_missed(self.step, job.history):
            self.evaluate()
        batches = self.order.batches(self.step, self.total_steps)
        with closing(read_batches(self.read, batches, self.recipe.data.workers)) as updates:
            for rows in updates:
                self.update(rows)
                if self.finished_after_what_is_due():
                    break

    # ---- one update ------------------------------------------------------------------------

    def update(self, rows: list[Row]) -> None:
        """Count the rows that could be read, and take one step of AdamW on them."""
        self._report_skipped([row.skipped for row in rows if row.skipped])
        good = [row for row in rows if row.pixels is not None]
        self.images_seen += len(good)
        training = self.recipe.training
        rate = learning_rate(training, self.step, self.total_steps)
        norm = 0.0
        if good:
            with np.errstate(all="ignore"):  # what overflows is found below
                loss, gradients = self.model.loss_and_gradients(*self._batch(good))
                norm = math.sqrt(
                    math.fsum(float((gradients[name] ** 2).sum()) for name in self.trained)
                )
                ids = [row.image_id for row in good]
                if not math.isfinite(loss):
                    raise divergence(
                        f"loss became {loss}", self.step + 1, rate, ids, self.job.output_dir
                    )
                self.loss_sum += loss
                if self._usable(norm, rate, ids):
                    clip = training.max_grad_norm
                    scale = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
                    self._adamw(gradients, rate, scale)
        self.step += 1
        self.steps_in_sum += 1
        self.emit("step", images=len(good))
        if self.step >= self.order.batches_per_epoch and not self.images_seen:
            raise DataError(f"None of the training images of {self.job.train.name} could be read.")
        if self.plan.log_due(self.step):
            values = {"learning_rate": rate, "grad_norm": norm}
            self.emit("log", loss=self.loss_sum / self.steps_in_sum, **values)
            self.loss_sum, self.steps_in_sum = 0.0, 0

    def _batch(self, rows: list[Row]) -> tuple[np.ndarray, ...]:
        """Colours, and padded ids, targets and mask, each `(rows, length)`."""
        colours = np.stack([self.model.colours(row.pixels) for row in rows])
        if noise := self.job.options.colour_noise:
            draw = np.random.default_rng((self.recipe.training.seed, self.step))
            colours += draw.normal(0, noise, colours.shape).astype(np.float32)
        pairs = [decoder_pairs(row.ids, self.model.start) for row in rows]
        shape = (len(rows), max(len(inputs) for inputs, _ in pairs))
        ids, targets = np.full(shape, self.model.pad), np.zeros(shape, int)
        mask = np.zeros(shape, bool)
        for row, (inputs, wanted) in enumerate(pairs):
            ids[row, : len(inputs)], targets[row, : len(inputs)] = inputs, wanted
            mask[row, : len(inputs)] = True
        return colours, ids, targets, mask

    def _adamw(self, gradients: Tensors, rate: float, scale: float) -> None:
        training, n = self.recipe.training, self.step + 1
        beta1, beta2 = training.adam_beta1, training.adam_beta2
        for name in self.trained:
            first, second = self.moments[f"first.{name}"], self.moments[f"second.{name}"]
            gradient, tensor = gradients[name] * np.float32(scale), self.model.tensors[name]
            first += (1 - beta1) * (gradient - first)
            second += (1 - beta2) * (gradient**2 - second)
            if tensor.ndim > 1:  # no decay of biases
                tensor *= 1 - rate * training.weight_decay
            root = np.sqrt(second / (1 - beta2**n)) + training.adam_epsilon
            tensor -= rate * (first / (1 - beta1**n)) / root

    def _usable(self, norm: float, rate: float, image_ids: list[str]) -> bool:
        """Whether a gradient is finite; after many in a row that are not the run ends."""
        if math.isfinite(norm):
            self.left_out_in_a_row = 0
            return True
        self.left_out_in_a_row += 1
        if self.left_out_in_a_row == MOST_OVERFLOWS:
            what = f"gradients overflowed {MOST_OVERFLOWS} times in a row"
            raise divergence(what, self.step + 1, rate, image_ids, self.job.output_dir)
        warnings.warn(left_out(self.step + 1, norm, image_ids), stacklevel=2)
        return False

    def _report_skipped(self, skipped: list[tuple[str, str]]) -> None:
        for image_id, reason in skipped:
            if self.recipe.data.on_bad_image == "stop":
                raise ImageError(f"{reason.rstrip('.')}. on_bad_image='skip' goes on without it.")
            self.emit("skip", image_id=image_id, reason=reason)

    # ---- evaluating, saving ----------------------------------------------------------------

    def finished_after_what_is_due(self) -> bool:
        """Evaluate and save as the plan says; whether the run ends here."""
        stop = self.job.should_stop()
        evaluate = self.plan.evaluation_due(self.step) and not stop
        save = self.plan.save_due(self.step) or stop
        if evaluate:
            save = self.evaluate() or save
        if save:
            self.save()
        self.interrupted = stop
        return stop or (evaluate and self.plan.out_of_patience)

    def evaluate(self) -> bool:
        """Hand a captioner to core's Evaluator; whether the weights are to be kept."""
        assert self.job.evaluator is not None
        values = self.job.evaluator(ColoursCaptioner(self.model))
        self.emit("evaluate", **values)
        best = self.plan.evaluated(self.step, {f"eval_{k}": v for k, v in values.items()})
        if best or not self.plan.keep_best:
            self.job.evaluator.keep()
        return best and self.plan.keep_best

    def save(self) -> None:
        """Write checkpoint-N, its manifest last, then remove what is too old."""
        from safetensors.numpy import save_file

        folder = self.job.output_dir / f"checkpoint-{self.step}"
        numbers = {
            "loss_sum": self.loss_sum, "steps_in_sum": self.steps_in_sum,
            "left_out_in_a_row": self.left_out_in_a_row,
        }  # fmt: skip
        with checkpoints.removed_unless_written(folder):
            checkpoints.begin(folder)
            self.model.save(folder, self.recipe.decoding)
            save_file(self.moments, folder / f"{_STATE}.safetensors")
            (folder / f"{_STATE}.json").write_text(json.dumps(numbers), encoding="utf-8")
            checkpoints.write_manifest(folder)
        keep = self.recipe.training.save_total_limit
        checkpoints.prune(folder.parent, keep, self.plan.best_step)
        self.emit("save", path=str(folder))

    def save_final(self) -> None:
        """Write the weights that the run ends with: the last ones, or the best."""
        best, folder = self.plan.best_step, self.job.output_dir
        if self.plan.keep_best and best is None:  # that of a resumed run is gone
            self.evaluate()
        model = self.model
        if self.plan.keep_best and best not in (None, self.step):
            model = Model.open(folder / f"checkpoint-{best}")
        # beside, then moved: a crash leaves no half of a model in the run's folder
        temporary = folder / ".saving"
        with checkpoints.removed_unless_written(temporary, "The model"):
            shutil.rmtree(temporary, ignore_errors=True)
            model.save(temporary, self.recipe.decoding)
            checkpoints.move_durably(temporary, folder)

    def _restore(self, checkpoint: Path) -> None:
        from safetensors.numpy import load_file

        self.step = checkpoints.step_of(checkpoint)
        self.images_seen = 1  # the first part of the run has seen some
        self.moments = load_file(checkpoint / f"{_STATE}.safetensors")
        numbers: dict[str, Any] = json.loads((checkpoint / f"{_STATE}.json").read_text("utf-8"))
        vars(self).update(numbers)

    def emit(self, kind: Any, **values: Any) -> None:
        """Report to core, which knows the bar, the history and TensorBoard."""
        epoch = self.step / self.order.batches_per_epoch
        self.job.on_event(TrainEvent(kind, self.step, self.total_steps, epoch, values))
