"""What a run sees: every visit once, in core's order, shared out, padded and masked."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from captionkit.backends.flax.batches import TrainingBatches
from captionkit.backends.flax.loss import IGNORED
from captionkit.data.captions import encode_captions
from captionkit.data.dataset import CaptionDataset
from captionkit.data.loader import RowReader, RunOrder
from captionkit.data.order import visits
from captionkit.data.preprocess import Preprocessor
from captionkit.recipe import Recipe

START, PAD = 2, 0


@pytest.fixture(scope="module")
def dataset(pairs):
    return CaptionDataset.from_pairs(pairs[:11], "pictures")


def make(dataset, tokenizer, devices=1, local=None, **settings):
    recipe = Recipe().replace(**{"batch_size": 4, "epochs": 2, "workers": 3, **settings})
    ids = [encode_captions(tokenizer, dataset.captions_of(i)) for i in range(len(dataset))]
    order = RunOrder(dataset, recipe, recipe.training.batch_size)
    read = RowReader(dataset, ids, Preprocessor.square(16).read)
    sizes = {"size": (16, 16), "start_id": START, "pad_id": PAD, "devices": devices, "local": local}
    return TrainingBatches(order, read, recipe, **sizes), ids


def rows_in_order(update, devices):
    """Undo the sharing out: passes follow one another, each split over the devices."""
    arrays = update.arrays
    if devices > 1:
        arrays = {name: array.swapaxes(0, 1) for name, array in arrays.items()}
        return {k: a.reshape(-1, *a.shape[3:]) for k, a in arrays.items()}
    return {k: a.reshape(-1, *a.shape[2:]) for k, a in arrays.items()}


def test_a_process_reads_its_own_images_and_counts_those_of_all(dataset, tokenizer):
    whole = list(make(dataset, tokenizer, devices=2)[0].updates())
    parts = [
        list(make(dataset, tokenizer, devices=2, local=range(n, n + 1))[0].updates())
        for n in (0, 1)
    ]
    for update, *shares in zip(whole, *parts, strict=True):
        assert [share.images for share in shares] == [update.images] * 2
        assert [name for share in shares for name in share.image_ids] == update.image_ids
        for name, array in update.arrays.items():
            assert np.array_equal(np.concatenate([share.arrays[name] for share in shares]), array)


@pytest.mark.parametrize("captions", ["random", "all", "first"])
@pytest.mark.parametrize(
    ("devices", "accumulation_steps"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)]
)
def test_every_visit_comes_once_in_order(dataset, tokenizer, captions, devices, accumulation_steps):
    batches, ids = make(
        dataset, tokenizer, devices, captions=captions, accumulation_steps=accumulation_steps
    )
    count = 22 if captions == "all" else 11
    assert batches.steps_per_epoch == math.ceil(count / 4)
    updates = list(batches.updates())
    assert len(updates) == batches.total_steps == 2 * math.ceil(count / 4)
    preprocess = Preprocessor.square(16)
    for epoch in range(2):
        order = visits(dataset, captions, 42, epoch).tolist()
        part = updates[epoch * batches.steps_per_epoch : (epoch + 1) * batches.steps_per_epoch]
        assert [update.images for update in part] == [4] * (count // 4) + [count % 4] * (
            count % 4 > 0
        )
        for update in part:
            shape = (devices,) * (devices > 1) + (accumulation_steps,)
            assert update.arrays["targets"].shape[:-2] == shape
            rows = rows_in_order(update, devices)
            for row in range(4):
                wanted = rows["targets"][row][rows["targets"][row] != IGNORED].tolist()
                if row >= update.images:
                    assert wanted == []
                    assert not rows["pixels"][row].any()
                    assert rows["mask"][row].sum() == 1
                    continue
                image, caption = order.pop(0)
                assert wanted == ids[image][caption][1:]
                inputs = rows["input_ids"][row]
                assert inputs[: len(wanted)].tolist() == ids[image][caption][:-1]
                assert (inputs[len(wanted) :] == PAD).all()
                assert rows["mask"][row].sum() == len(wanted)
                assert np.array_equal(rows["pixels"][row], preprocess(dataset[image].image))
        assert order == []


@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_any_position_can_be_taken_up(dataset, tokenizer, first):
    batches, _ = make(dataset, tokenizer)
    whole = list(batches.updates())[first:]
    for a, b in zip(whole, batches.updates(first), strict=True):
        for name in a.arrays:
            assert np.array_equal(a.arrays[name], b.arrays[name])


def test_epochs_are_counted_in_passes(dataset, tokenizer):
    batches, _ = make(
        dataset, tokenizer, accumulation_steps=2
    )  # 11 images: passes of 2, the last 1
    assert [batches.epoch_at(step) for step in range(7)] == pytest.approx(
        [0, 2 / 6, 4 / 6, 1, 1 + 2 / 6, 1 + 4 / 6, 2]
    )
    assert make(dataset, tokenizer, epochs=1.5)[0].total_steps == 5
    assert make(dataset, tokenizer, epochs=1.5, max_steps=3)[0].total_steps == 3


def test_few_lengths_are_compiled(dataset, tokenizer):
    long = CaptionDataset.from_pairs(
        [(dataset[i].image, "red " * n) for i, n in enumerate([3, 14, 15, 16, 17, 32, 38])], "long"
    )
    batches, _ = make(long, tokenizer, batch_size=1, epochs=1)
    lengths = sorted(update.arrays["targets"].shape[-1] for update in batches.updates())
    # inputs are the start and the words
    assert lengths == [16, 16, 16, 32, 32, 39, 39]


def test_start_tokens_are_put_before_captions_without(dataset):
    recipe = Recipe().replace(batch_size=11, epochs=1)
    ids = [[[7, 8, 1], [9, 1]]] * 11
    read = RowReader(dataset, ids, Preprocessor.square(16).read)
    batches = TrainingBatches(RunOrder(dataset, recipe, 11), read, recipe, (16, 16), 50, 1)
    (update,) = batches.updates()
    rows = rows_in_order(update, 1)
    for inputs, targets in zip(rows["input_ids"].tolist(), rows["targets"].tolist()):
        assert (inputs, targets) in (
            ([50, 7, 8], [7, 8, 1]),
            ([50, 9, 1], [9, 1, IGNORED]),
        )


def test_a_bad_image_is_masked_and_named(dataset, tokenizer, tmp_path, pairs):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff cut off")
    mixed = CaptionDataset.from_pairs(
        [*pairs[:3], (str(tmp_path / "bad.jpg"), "unseen"), *pairs[3:6]], "mixed"
    )
    batches, _ = make(mixed, tokenizer, epochs=1)
    updates = list(batches.updates())
    skipped = [skip for update in updates for skip in update.skipped]
    assert [image_id for image_id, _ in skipped] == [str(tmp_path / "bad.jpg")]
    assert sum(update.images for update in updates) == 6
    for update in updates:
        rows = rows_in_order(update, 1)
        assert (rows["targets"] != IGNORED).any(1).sum() == update.images
        assert rows["mask"].any(1).all()


def test_closing_ends_every_thread(dataset, tokenizer):
    before = threading.active_count()
    updates = make(dataset, tokenizer, epochs=50)[0].updates()
    next(updates)
    assert threading.active_count() > before
    updates.close()
    assert threading.active_count() == before
