"""Losses and gradients that are not finite, in torch: see not_finite_policy.py."""

from __future__ import annotations

import pytest
import torch
from not_finite_policy import (  # noqa: F401 (the tests of every backend)
    NotFinite,
    marked,
    test_a_gradient_that_is_not_finite_is_left_out,
    test_a_loss_that_is_not_finite_stops_the_run_at_once,
    test_gradients_that_are_never_finite_stop_the_run,
)

from captionkit.backends.torch import trainer
from captionkit.backends.torch.loss import caption_loss


@pytest.fixture
def not_finite(git_folder):
    return NotFinite(
        str(git_folder), {"device": "cpu"}, trainer, spoil, infinite_gradient, {"max_grad_norm": 0}
    )


def spoil(monkeypatch, spoiled, always=False):
    def loss(logits, targets, *more):
        value = caption_loss(logits, targets, *more)
        repeated = (targets[:, 1:4] == targets[:, :1]).all(1) & (targets[:, 0] != -100)
        return spoiled(value, logits) if always or repeated.any() else value

    monkeypatch.setattr(trainer, "caption_loss", loss)


def infinite_gradient(loss, logits):
    total = logits.sum()
    # adds 0, whose gradient is not a number
    return loss + torch.sqrt((total - total.detach()) ** 2)
