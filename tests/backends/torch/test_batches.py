"""What a process sees: every visit once, in core's order, padded; from any batch on."""

from __future__ import annotations

import math
import threading
from contextlib import closing

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from torch.utils.data import DataLoader

from captionkit.backends.torch.batches import TrainingBatches
from captionkit.backends.torch.loss import IGNORED
from captionkit.data.captions import encode_captions
from captionkit.data.dataset import CaptionDataset
from captionkit.data.loader import RowReader, RunOrder
from captionkit.data.order import visits
from captionkit.data.preprocess import Preprocessor
from captionkit.recipe import Recipe

SIZE = 16


@pytest.fixture(scope="module")
def dataset(pairs):
    return CaptionDataset.from_pairs(pairs[:11], "pictures")


@pytest.fixture(scope="module")
def ids(dataset, tokenizer):
    return [encode_captions(tokenizer, dataset.captions_of(i)) for i in range(len(dataset))]


def make(dataset, ids, size=4, process=0, processes=1, start_id=None, **settings):
    recipe = Recipe().replace(**{"epochs": 2, "workers": 3, "batch_size": 8, **settings})
    preprocess = Preprocessor.square(SIZE)
    return TrainingBatches(
        RunOrder(dataset, recipe, size, process, processes),
        RowReader(dataset, ids, preprocess.read),
        recipe, 0, (SIZE, SIZE), start_id,
    )  # fmt: skip


def epochs_of(batches, epochs=2):
    found = []
    with closing(batches):
        for batches.epoch in range(epochs):
            found += [batches[number] for number in range(len(batches))]
    return found


@pytest.mark.parametrize("captions", ["random", "all", "first"])
@pytest.mark.parametrize(("size", "processes"), [(4, 1), (2, 2), (3, 3), (16, 1)])
def test_every_visit_comes_once_in_order(dataset, ids, captions, size, processes):
    parts = [
        epochs_of(make(dataset, ids, size, process, processes, captions=captions))
        for process in range(processes)
    ]
    together = [batch for batches in zip(*parts, strict=True) for batch in batches]
    order = [v for epoch in range(2) for v in visits(dataset, captions, 42, epoch).tolist()]
    preprocess = Preprocessor.square(SIZE)
    for batch in together:
        assert batch["skipped"] == []
        assert batch["pixel_values"].dtype == torch.uint8
        kept = (batch["labels"] != IGNORED).any(1)
        if not kept.any():  # filled up, so that all processes have as many batches
            assert batch["pixel_values"].shape == (1, 3, SIZE, SIZE)
            assert not batch["pixel_values"].any()
            continue
        longest = 0
        for row in range(len(kept)):
            image, caption = order.pop(0)
            *inputs, _ = wanted = ids[image][caption]
            count = len(inputs)
            assert batch["input_ids"][row].tolist()[:count] == inputs
            assert not batch["input_ids"][row][count:].any()
            assert batch["labels"][row].tolist()[:count] == wanted[1:]
            assert (batch["labels"][row][count:] == IGNORED).all()
            assert batch["attention_mask"][row].sum() == count
            pixels = batch["pixel_values"][row].permute(1, 2, 0).numpy()
            assert np.array_equal(pixels, preprocess(dataset[image].image))
            longest = max(longest, count)
        assert batch["labels"].shape[1] == longest
    assert order == []


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_loop_of_the_trainer_can_begin_anywhere(dataset, ids, first):
    """As the Trainer resumes; what is skipped is not read."""
    whole = epochs_of(make(dataset, ids))
    batches, read = make(dataset, ids), []

    def reading(visit, read_row=batches.read):
        read.append(visit)
        return read_row(visit)

    batches.read = reading
    dataloader = DataLoader(batches, collate_fn=lambda rows: rows[0])
    batches.epoch = 1
    with closing(batches):
        found = list(skip_first_batches(dataloader, first))
    assert len(found) == len(batches) - first == 3 - first
    for a, b in zip(found, whole[3 + first :], strict=True):
        tensors = a.keys() - {"skipped", "image_ids"}
        assert all(torch.equal(a[name], b[name]) for name in tensors)
        assert a["image_ids"] == b["image_ids"]
    order = [tuple(visit) for visit in visits(dataset, "random", 42, 1).tolist()]
    assert sorted(read) == sorted(order[4 * first :])


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"epochs": 2}, 6),
        ({"epochs": 1.5}, 5),
        ({"epochs": 2, "accumulation_steps": 2}, 6),
        ({"epochs": 1.5, "accumulation_steps": 2}, 5),
        ({"max_steps": 4}, 4),
        ({"max_steps": 4, "accumulation_steps": 2}, 6),
        ({"max_steps": 3, "accumulation_steps": 2}, 5),
    ],
)
def test_nothing_is_read_beyond_the_end_of_the_run(dataset, ids, settings, count):
    """11 images, 4 a batch: 3 batches an epoch, and the last update of an epoch may be short."""
    batches = make(dataset, ids, **settings)
    assert batches.last == count
    assert len(list(batches._from(0))) == count
    batches.epoch, number = divmod(count, 3)  # and yet whatever is asked for comes
    with closing(batches):
        assert len(batches[number]["labels"]) == (3 if number == 2 else 4)
        assert len(batches[number]["labels"]) == (3 if number == 2 else 4)


def test_bad_images_are_left_out_and_named(dataset, tokenizer, tmp_path, pairs):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff cut off")
    mixed = [*pairs[:3], (str(tmp_path / "bad.jpg"), "unseen"), *pairs[3:6]]
    dataset = CaptionDataset.from_pairs(mixed, "mixed")
    ids = [encode_captions(tokenizer, dataset.captions_of(i)) for i in range(len(dataset))]
    for size in (1, 4):
        found = epochs_of(make(dataset, ids, size), 1)
        skipped = [skip for batch in found for skip in batch["skipped"]]
        assert [image_id for image_id, _ in skipped] == [str(tmp_path / "bad.jpg")]
        rows = [int((batch["labels"] != IGNORED).any(1).sum()) for batch in found]
        assert sum(rows) == 6
        assert len(found) == math.ceil(7 / size)


def test_start_tokens_are_put_before_captions_without(dataset):
    (batch,) = epochs_of(make(dataset, [[[7, 8, 1], [9, 1]]] * 11, 16, start_id=50), 1)
    for inputs, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist()):
        assert (inputs, labels) in (
            ([50, 7, 8], [7, 8, 1]),
            ([50, 9, 0], [9, 1, IGNORED]),
        )


def test_no_thread_is_left(dataset, ids):
    before = threading.active_count()
    batches = make(dataset, ids, epochs=100)
    assert threading.active_count() == before  # none before the first batch
    batches[0]
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
    batches.close()
    batches[2]  # it can be used again
    batches.close()
    assert threading.active_count() == before
