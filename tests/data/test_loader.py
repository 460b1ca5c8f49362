"""What a run sees, and that threads change nothing but the speed."""

from __future__ import annotations

import io
import math
import threading

import numpy as np
import pytest
from PIL import Image

from captionkit.data import loader
from captionkit.data.dataset import CaptionDataset
from captionkit.data.loader import (
    RowReader,
    RunOrder,
    ahead,
    default_workers,
    image_reader,
    read_batches,
)
from captionkit.data.order import visits
from captionkit.data.preprocess import Preprocessor
from captionkit.recipe import DataConfig, Recipe

RNG = np.random.default_rng(0)


def picture() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def dataset():
    pairs = [(picture(), [f"one {i}", f"two {i}", f"three {i}"][: 1 + i % 3]) for i in range(11)]
    return CaptionDataset.from_pairs(pairs, "pictures")


# ---- which rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("captions", ["random", "all", "first"])
@pytest.mark.parametrize(("size", "processes"), [(4, 1), (1, 1), (2, 2), (3, 4), (20, 2)])
def test_the_processes_together_see_every_visit_once_in_order(dataset, captions, size, processes):
    recipe = Recipe().replace(captions=captions, seed=7)
    orders = [RunOrder(dataset, recipe, size, process, processes) for process in range(processes)]
    per_epoch = orders[0].batches_per_epoch
    assert per_epoch == math.ceil((21 if captions == "all" else 11) / (size * processes))
    parts = [list(order.batches(0, 3 * per_epoch)) for order in orders]
    assert [len(part) for part in parts] == [3 * per_epoch] * processes
    seen = [visit for batches in zip(*parts) for batch in batches for visit in batch]
    assert seen == [tuple(v) for e in range(3) for v in visits(dataset, captions, 7, e).tolist()]
    assert all(len(batch) <= size for part in parts for batch in part)


def test_any_batch_can_be_taken_up(dataset):
    order = RunOrder(dataset, Recipe(), 4)
    whole = list(order.batches(0, 9))
    for first in range(9):
        assert list(order.batches(first, 9)) == whole[first:]


# ---- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_rows_come_in_order_whatever_the_number_of_threads(dataset, workers):
    ids = [[[i, c] for c in range(3)] for i in range(11)]
    preprocess = Preprocessor.square(16)
    read = RowReader(dataset, ids, preprocess.read)
    batches = list(RunOrder(dataset, Recipe(), 4).batches(0, 6))
    found = list(read_batches(read, batches, workers))
    for batch, rows in zip(batches, found, strict=True):
        for (image, caption), row in zip(batch, rows, strict=True):
            assert row.ids == [image, caption]
            assert row.skipped is None
            np.testing.assert_array_equal(row.pixels, preprocess(dataset[image].image))


def test_items_are_read_at_the_same_time_and_across_batches():
    """Each of the four waits for the other three: two batches, four threads."""
    together = threading.Barrier(4)

    def read(item: int) -> int:
        together.wait(timeout=30)
        return item

    assert list(read_batches(read, [[0, 1], [2, 3], [4, 5], [6, 7]], 4)) == [
        [0, 1], [2, 3], [4, 5], [6, 7],
    ]  # fmt: skip


def test_batches_may_be_empty_and_none_is_none():
    assert list(read_batches(str, [[], [1], []], 2)) == [[], ["1"], []]
    assert list(read_batches(str, [], 2)) == []


def test_an_error_of_a_thread_comes_with_its_batch():
    def read(item: int) -> int:
        if item == 5:
            raise KeyError("five")
        return item

    seen = []
    with pytest.raises(KeyError, match="five"):
        seen.extend(read_batches(read, [[0, 1], [2, 3], [4, 5], [6, 7]], 2))
    assert seen == [[0, 1], [2, 3]]


def test_closing_ends_the_threads_without_reading_on():
    before, read = threading.active_count(), []
    batches = ([i] for i in range(10_000))
    running = ahead(read_batches(read.append, batches, 3))
    next(running)
    assert threading.active_count() > before
    running.close()
    assert threading.active_count() == before
    assert len(read) < 20


def test_a_bad_image_is_a_reason_not_an_error(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff cut off")
    pairs = [(str(tmp_path / "bad.jpg"), "a"), (picture(), "b")]
    read = RowReader(
        CaptionDataset.from_pairs(pairs, "p"), [[[1]], [[2]]], Preprocessor.square(16).read
    )
    bad, good = read((0, 0)), read((1, 0))
    image_id, reason = bad.skipped
    assert (bad.pixels, bad.ids, image_id) == (None, [1], str(tmp_path / "bad.jpg"))
    assert reason.startswith(f"Image {image_id!r}: Cannot read {image_id}: it is ")
    assert good.skipped is None


def test_the_cache_takes_the_place_of_reading(monkeypatch):
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    preprocess = Preprocessor.square(16)
    plain = image_reader(preprocess, DataConfig(), 1)(buffer.getvalue())
    kept = DataConfig(image_cache_gb=0.001)
    monkeypatch.setattr("captionkit.data.decoded_cache.LEFT_FREE", 0)
    np.testing.assert_array_equal(image_reader(preprocess, kept, 1)(buffer.getvalue()), plain)
    monkeypatch.setattr(Preprocessor, "read", pytest.fail)
    np.testing.assert_array_equal(image_reader(preprocess, kept, 1)(buffer.getvalue()), plain)


def test_as_many_threads_as_cores_shared_between_processes(monkeypatch):
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for beside, workers in (("", 8), ("2", 4), ("8", 1), ("100", 1), ("0", 8), ("x", 8)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", beside)
        assert default_workers() == workers
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda pid: set(range(99)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert default_workers() == 16


# ---- ahead of time -------------------------------------------------------------------------------


def test_items_are_made_ahead_and_errors_arrive_in_their_place():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            if i == 5:
                raise KeyError("five")
            yield i

    seen = []
    with pytest.raises(KeyError, match="five"):
        seen.extend(ahead(items(), 2))  # what came before the error is kept
    assert seen == made[:-1] == [0, 1, 2, 3, 4]


def test_items_are_made_before_they_are_asked_for():
    third = threading.Event()

    def items():
        yield 0
        yield 1
        third.set()
        yield 2

    running = ahead(items(), 2)
    assert next(running) == 0
    assert third.wait(timeout=30)  # made while nobody asks
    assert list(running) == [1, 2]


def test_closing_ends_the_thread_and_closes_the_items():
    closed = []

    def items():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    before = threading.active_count()
    stream = ahead(items(), 2)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before
    assert closed == [True]
