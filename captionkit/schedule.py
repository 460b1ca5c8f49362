"""The learning rate at each update: the schedules of transformers' Trainer, in plain Python."""

from __future__ import annotations

import math

from captionkit.recipe import TrainingConfig


def learning_rate(training: TrainingConfig, step: int, total_steps: int) -> float:
    """The rate of update `step`, counted from 0: a linear warm-up from zero, then the schedule."""
    peak, warmup = training.learning_rate, training.warmup_steps
    if step < warmup:
        return peak * (step / warmup)
    if training.schedule == "constant":
        return peak
    rest = max(1, total_steps - warmup)
    if training.schedule == "linear":
        return peak * max(0.0, (total_steps - step) / rest)
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / rest)))
