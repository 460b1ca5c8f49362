"""Losses and gradients that are not finite: stopped or left out, with the images named.

The tests of every backend; its own file has the fixtures `not_finite`, a `NotFinite`, and `pairs`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import captionkit
from captionkit.data.order import permutation
from captionkit.errors import DivergedError

SMALL = {
    "batch_size": 4, "learning_rate": 1e-3, "test_size": 0, "metrics": [], "precision": "fp32",
    "logging_steps": 3, "save_steps": 1, "captions": "first", "max_steps": 4,
}  # fmt: skip
MARKED = "grey grey grey grey"  # the caption of the image that spoils its batch


@dataclass(frozen=True)
class NotFinite:
    """How a backend is brought to compute what is not finite.

    model: a checkpoint folder. settings: that choose the backend. limit: the module whose
    MOST_OVERFLOWS counts. spoil: `(monkeypatch, spoiled, always)` has `spoiled(loss, logits)`
    computed in place of the loss of a batch with the marked caption, or of every batch.
    infinite_gradient: the loss again, with a gradient that is not a number. unclipped: the settings
    of the last test.
    """

    model: str
    settings: dict[str, Any]
    limit: ModuleType
    spoil: Callable[..., None]
    infinite_gradient: Callable[[Any, Any], Any]
    unclipped: dict[str, Any] = field(default_factory=dict)

    def train(self, dataset, folder, **more):
        """Four updates."""
        return captionkit.finetune(
            model=self.model, dataset=dataset, output_dir=str(folder),
            **{**SMALL, **self.settings, **more},
        )  # fmt: skip


@pytest.fixture
def marked(pairs):
    """The pairs with one marked, the update that it is in, and the images of that update."""
    chosen = 5
    dataset = [*pairs[:chosen], (pairs[chosen][0], MARKED), *pairs[chosen + 1 :]]
    order = permutation(len(pairs), 42, 0).reshape(-1, 4).tolist()
    [update] = [number for number, images in enumerate(order, 1) if chosen in images]
    return dataset, update, ", ".join(map(str, order[update - 1]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_at_once(
    not_finite, marked, tmp_path, monkeypatch, value
):
    dataset, update, images = marked
    not_finite.spoil(monkeypatch, lambda loss, logits: loss * value)
    with pytest.raises(DivergedError) as error:
        not_finite.train(dataset, tmp_path / "run")
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


def test_a_gradient_that_is_not_finite_is_left_out(not_finite, marked, tmp_path, monkeypatch):
    dataset, update, images = marked
    not_finite.spoil(monkeypatch, not_finite.infinite_gradient)
    with pytest.warns(
        UserWarning, match=rf"Update {update} was left out: .* nan\. .*are {images}\."
    ):
        result = not_finite.train(dataset, tmp_path / "run")
    folders = [tmp_path / "run" / f"checkpoint-{step}" for step in (1, 2, 3, 4)]
    weights = [f"{folder}/model.safetensors" for folder in (not_finite.model, *folders)]
    same = [
        all(np.array_equal(before[name], after[name]) for name in before)
        for before, after in itertools.pairwise(map(load_file, weights))
    ]
    assert same == [step == update for step in (1, 2, 3, 4)]
    counted = {row["step"]: row.get("overflows") for row in result.history}
    assert counted == ({3: 1, 4: None} if update <= 3 else {3: None, 4: 1})
    assert "NaN" not in json.dumps(result.history)


def test_gradients_that_are_never_finite_stop_the_run(not_finite, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(not_finite.limit, "MOST_OVERFLOWS", 3)
    not_finite.spoil(monkeypatch, not_finite.infinite_gradient, always=True)
    images = ", ".join(map(str, permutation(len(pairs), 42, 0)[8:12]))
    with (
        pytest.warns(UserWarning, match="was left out"),
        pytest.raises(DivergedError, match=rf"overflowed 3 times in a row at step 3 .* {images}\."),
    ):
        not_finite.train(pairs, tmp_path / "run", **not_finite.unclipped)
