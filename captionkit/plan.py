"""When a run logs, evaluates, saves and stops: the same on every backend."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from captionkit.checkpoints import damage
from captionkit.errors import ConfigError
from captionkit.recipe import Recipe


class Plan:
    """The timetable of one run, and its memory of the best evaluation so far.

    recipe: whose `training` says how often things happen.
    steps_per_epoch, total_steps: optimizer updates.
    has_validation: without it nothing is evaluated.
    higher_is_better: the direction of `best_metric`.
    history: rows of history.jsonl of the part of the run that is already done, when resuming.
    """

    def __init__(
        self,
        recipe: Recipe,
        steps_per_epoch: int,
        total_steps: int,
        has_validation: bool,
        higher_is_better: bool = False,
        history: Iterable[Mapping[str, Any]] = (),
    ):
        training = recipe.training
        self.total_steps = total_steps
        self.logging_steps = training.logging_steps
        self.eval_steps = _interval(training.eval_steps, steps_per_epoch) if has_validation else 0
        default_save = self.eval_steps if has_validation else steps_per_epoch
        self.save_steps = _interval(training.save_steps, default_save)
        self.has_validation = has_validation
        if not has_validation and (training.early_stopping_patience or training.best_metric):
            raise ConfigError(
                "early_stopping_patience and best_metric need validation images, and there are "
                "none. Set test_size, or give a validation split."
            )
        self.keep_best = has_validation and training.load_best and training.save_steps != 0
        self.key = "eval_" + (training.best_metric or "loss")
        self.sign = -1.0 if higher_is_better else 1.0
        self.patience = training.early_stopping_patience
        self.best_step: int | None = None
        self.best = math.inf
        self.without_better = 0
        for row in history:
            if self.key in row:
                self.evaluated(row["step"], row)

    def log_due(self, step: int) -> bool:
        """Whether the mean loss since the last log is reported after this step."""
        return step % self.logging_steps == 0 or step == self.total_steps

    def evaluation_due(self, step: int) -> bool:
        """Whether the model is evaluated after this step; always after the last."""
        if not self.has_validation:
            return False
        return step == self.total_steps or (self.eval_steps > 0 and step % self.eval_steps == 0)

    def evaluation_missed(self, step: int, history: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a run that was stopped after this step still owes its evaluation."""
        return self.evaluation_due(step) and not any(
            row["step"] == step and self.key in row for row in history
        )

    def save_due(self, step: int) -> bool:
        """Whether a checkpoint is written after this step, whatever the evaluation says."""
        return self.save_steps > 0 and (step % self.save_steps == 0 or step == self.total_steps)

    def evaluated(self, step: int, values: Mapping[str, Any]) -> bool:
        """Take note of an evaluation (keys with `eval_`); True: it is the best so far."""
        if self.key not in values:
            names = ", ".join(name.removeprefix("eval_") for name in values)
            raise ConfigError(
                f"best_metric={self.key.removeprefix('eval_')!r} is not among the evaluated "
                f"values: {names}. Choose one of them, or add its metric to `metrics`."
            )
        value = self.sign * float(values[self.key])
        if value < self.best:  # never true of NaN
            self.best, self.best_step, self.without_better = value, step, 0
            return True
        self.without_better += 1
        return False

    def forget_best_if_damaged(self, output_dir: Path) -> None:
        """Forget a best step whose checkpoint is gone or damaged: it cannot be gone back to."""
        if not self.keep_best or self.best_step is None:
            return
        folder = output_dir / f"checkpoint-{self.best_step}"
        if wrong := damage(folder):
            warnings.warn(
                f"The best checkpoint so far, {folder}, is lost: {wrong}. The run ends with the "
                "best of those from here on.",
                stacklevel=2,
            )
            self.best, self.best_step = math.inf, None

    @property
    def out_of_patience(self) -> bool:
        """Whether early stopping ends the run."""
        return self.patience is not None and self.without_better >= self.patience


def _interval(steps: int | None, default: int) -> int:
    return default if steps is None else steps
