import numpy as np
import pytest

from captionkit.data.captions import build_word_tokenizer
from captionkit.data.loader import training_rows
from captionkit.data.preprocess import Preprocessor
from captionkit.data.stream_rows import StreamOrder
from captionkit.data.streaming import StreamedDataset
from captionkit.errors import DataError
from captionkit.recipe import Recipe
from captionkit.types import Example

PIXELS = np.zeros((4, 4, 3), np.uint8)


def made(count=10, source=PIXELS) -> StreamedDataset:
    def shard():
        return (Example(source, (f"{i}", f"{i} again"), f"id{i}") for i in range(count))

    return StreamedDataset([shard], "made", Recipe().replace(shuffle_buffer=3).data)


def recipe(**settings) -> Recipe:
    return Recipe().replace(**{"max_steps": 6, "batch_size": 4, "captions": "all", **settings})


def encode(captions, names):
    assert len(captions) == len(names)
    return [[int(name[2:]), len(text)] for text, name in zip(captions, names)]


def ids_of(batches) -> list[list[list[int]]]:
    return [[ids for _, ids in batch] for batch in batches]


@pytest.mark.parametrize(("size", "processes"), [(4, 1), (2, 2), (1, 4), (2, 1)])
def test_an_update_is_the_same_however_it_is_shared_out(size, processes):
    orders = [
        StreamOrder(made(), recipe(), encode, size, process, processes)
        for process in range(processes)
    ]
    per_epoch = orders[0].batches_per_epoch
    assert per_epoch == 24 // (size * processes)
    assert orders[0].visits == 24
    shares = [ids_of(order.batches(0, per_epoch)) for order in orders]
    passes = [[row for part in parts for row in part] for parts in zip(*shares, strict=True)]
    rows = [row for one in passes for row in one]
    alone = ids_of(StreamOrder(made(), recipe(), encode, 4).batches(0, 6))
    assert [sorted(rows[i : i + 4]) for i in range(0, 24, 4)] == [sorted(b) for b in alone]
    # every caption of the ten images once in the first twenty
    assert len({tuple(row) for one in alone[:5] for row in one}) == 20


@pytest.mark.parametrize("first", [0, 1, 5])
def test_going_on_at_a_batch(first):
    for process in range(2):
        order = StreamOrder(made(), recipe(), encode, 2, process, 2)
        whole = ids_of(order.batches(0, 6))
        assert ids_of(order.batches(first, 6)) == whole[first:]
        assert all(len(batch) == 2 for batch in whole)


def test_rows_of_a_stream():
    tokenizer = build_word_tokenizer([*map(str, range(10)), "again"])
    preprocess = Preprocessor.square(8)
    order, read = training_rows(made(), recipe(), tokenizer, 5, preprocess, 4)
    (batch,) = order.batches(0, 1)
    row = read(batch[0])
    example, ids = batch[0]
    assert row.pixels.shape == (8, 8, 3)
    assert row.ids == ids
    assert ids in [tokenizer(text)["input_ids"] for text in example.captions]
    assert len(read.longest) == 5

    order, read = training_rows(made(source=b"words"), recipe(), tokenizer, 5, preprocess, 4)
    (batch,) = order.batches(0, 1)
    row = read(batch[0])
    assert row.pixels is None
    assert row.skipped[0] == batch[0][0].image_id
    assert "not an image" in row.skipped[1]

    order, _ = training_rows(made(), recipe(), tokenizer, 3, preprocess, 4)
    with pytest.raises(DataError, match=r"again' of id\d is 4 tokens long, and the model allows 3"):
        list(order.batches(0, 6))
