"""Losses and gradients that are not finite, in Flax: see not_finite_policy.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from not_finite_policy import (  # noqa: F401 (the tests of every backend)
    NotFinite,
    marked,
    test_a_gradient_that_is_not_finite_is_left_out,
    test_a_loss_that_is_not_finite_stops_the_run_at_once,
    test_gradients_that_are_never_finite_stop_the_run,
)

from captionkit.backends.flax import step as training
from captionkit.backends.flax import trainer
from captionkit.backends.flax.loss import caption_loss


@pytest.fixture
def not_finite(ved_folder):
    return NotFinite(str(ved_folder), {"backend": "flax"}, trainer, spoil, infinite_gradient)


def spoil(monkeypatch, spoiled, always=False):
    """Not by jnp.where, which would carry the NaN of its other side into every gradient."""

    def loss(logits, targets, *more):
        value = caption_loss(logits, targets, *more)
        repeated = (targets[:, 1:4] == targets[:, :1]).all(1) & (targets[:, 0] != -100)
        if always:
            return spoiled(value, logits)
        return jax.lax.cond(repeated.any(), spoiled, lambda value, logits: value, value, logits)

    monkeypatch.setattr(training, "caption_loss", loss)


def infinite_gradient(loss, logits):
    total = logits.sum()
    # adds 0, whose gradient is not a number
    return loss + jnp.sqrt((total - jax.lax.stop_gradient(total)) ** 2)
