"""Losses and gradients that are not finite: stopped or left out, with the images named."""

from __future__ import annotations

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import captionkit
from captionkit.backends.flax import step as training
from captionkit.backends.flax import trainer
from captionkit.backends.flax.loss import caption_loss
from captionkit.data.order import permutation
from captionkit.errors import DivergedError

SMALL = {
    "batch_size": 4, "learning_rate": 1e-3, "test_size": 0, "metrics": [], "precision": "fp32",
    "logging_steps": 3, "save_steps": 1, "captions": "first", "max_steps": 4, "backend": "flax",
}  # fmt: skip
MARKED = "grey grey grey grey"  # the caption of the image that spoils its batch


@pytest.fixture
def marked(pairs):
    """The pairs with one marked, the update that it is in, and the images of that update."""
    chosen = 5
    dataset = [*pairs[:chosen], (pairs[chosen][0], MARKED), *pairs[chosen + 1 :]]
    order = permutation(len(pairs), 42, 0).reshape(-1, 4).tolist()
    [update] = [number for number, images in enumerate(order, 1) if chosen in images]
    return dataset, update, ", ".join(map(str, order[update - 1]))


def spoil(monkeypatch, spoiled):
    """Compute the loss of a batch with the marked caption otherwise.

    Not by jnp.where, which would carry the NaN of its other side into every gradient.
    """

    def loss(logits, targets, *more):
        value = caption_loss(logits, targets, *more)
        repeated = (targets[:, 1:4] == targets[:, :1]).all(1) & (targets[:, 0] != -100)
        return jax.lax.cond(repeated.any(), spoiled, lambda value, logits: value, value, logits)

    monkeypatch.setattr(training, "caption_loss", loss)


def infinite_gradient(loss, logits):
    total = logits.sum()
    # adds 0, whose gradient is not a number
    return loss + jnp.sqrt((total - jax.lax.stop_gradient(total)) ** 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_at_once(
    ved_folder, marked, tmp_path, monkeypatch, value
):
    dataset, update, images = marked
    spoil(monkeypatch, lambda loss, logits: loss * value)
    with pytest.raises(DivergedError) as error:
        captionkit.finetune(
            model=str(ved_folder), dataset=dataset, output_dir=str(tmp_path / "run"), **SMALL
        )
    said = str(error.value)
    assert f"The loss became {value} at step {update} (" in said
    assert f"with the images {images}. " in said
    saved = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
    assert saved == [f"checkpoint-{step}" for step in range(1, update)]
    if saved:
        assert f"before it is {tmp_path / 'run' / saved[-1]}." in said
    for name in saved:
        weights = load_file(tmp_path / "run" / name / "model.safetensors")
        assert all(np.isfinite(tensor).all() for tensor in weights.values())


def test_a_gradient_that_is_not_finite_is_left_out(ved_folder, marked, tmp_path, monkeypatch):
    dataset, update, images = marked
    spoil(monkeypatch, infinite_gradient)
    with pytest.warns(
        UserWarning, match=rf"Update {update} was left out: .* nan\. .*are {images}\."
    ):
        result = captionkit.finetune(
            model=str(ved_folder), dataset=dataset, output_dir=str(tmp_path / "run"), **SMALL
        )
    weights = [ved_folder, *(tmp_path / "run" / f"checkpoint-{step}" for step in (1, 2, 3, 4))]
    weights = [load_file(folder / "model.safetensors") for folder in weights]
    same = [
        all(np.array_equal(before[name], after[name]) for name in before)
        for before, after in itertools.pairwise(weights)
    ]
    assert same == [step == update for step in (1, 2, 3, 4)]
    counted = {row["step"]: row.get("overflows") for row in result.history}
    assert counted == ({3: 1, 4: None} if update <= 3 else {3: None, 4: 1})
    assert "NaN" not in json.dumps(result.history)


def test_gradients_that_are_never_finite_stop_the_run(ved_folder, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "MOST_OVERFLOWS", 3)
    monkeypatch.setattr(
        training, "caption_loss", lambda logits, *more: infinite_gradient(
            caption_loss(logits, *more), logits
        )
    )  # fmt: skip
    images = ", ".join(map(str, permutation(len(pairs), 42, 0)[8:12]))
    with (
        pytest.warns(UserWarning, match="was left out"),
        pytest.raises(DivergedError, match=rf"overflowed 3 times in a row at step 3 .* {images}\."),
    ):
        captionkit.finetune(
            model=str(ved_folder), dataset=pairs, output_dir=str(tmp_path / "run"), **SMALL
        )
