import io
import itertools
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captionkit.data import hub, load_dataset, load_splits, parquet
from captionkit.data.dataset import CaptionDataset
from captionkit.data.order import caption_index, permutation
from captionkit.data.streaming import StreamedDataset, shuffled
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig
from captionkit.types import Example


def examples(first: int, count: int, captions: int = 2):
    for i in range(first, first + count):
        yield Example(f"{i}.jpg", tuple(f"{i}/{c}" for c in range(captions)), f"id{i}")


def stream(shards=(4, 5, 6), **config) -> StreamedDataset:
    starts = np.cumsum([0, *shards[:-1]]).tolist()
    parts = [
        lambda first=first, count=count: examples(first, count)
        for first, count in zip(starts, shards)
    ]
    return StreamedDataset(parts, "made", DataConfig(**{"shuffle_buffer": 4, **config}))


def texts(visits) -> list[str]:
    return [example.captions[chosen] for example, chosen in visits]


# ---- the shuffle buffer


@given(
    st.integers(0, 60), st.integers(1, 40), st.integers(0, 2**32), st.integers(0, 5)
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_a_buffer_gives_every_item_once(count, size, seed, epoch):
    out = list(shuffled(range(count), size, seed, epoch))
    assert sorted(out) == list(range(count))
    # an item cannot come out before it went in: at most size - 1 places early
    assert all(item <= place + size - 1 for place, item in enumerate(out[: count - size]))
    if size == 1:
        assert out == list(range(count))
    if size >= count:
        assert out == permutation(count, seed, epoch).tolist()
    assert out == list(shuffled(iter(range(count)), size, seed, epoch))


def test_a_buffer_reads_no_further_than_it_has_to():
    read = []
    items = (read.append(i) or i for i in itertools.count())
    first = next(shuffled(items, 10, 0, 0))
    assert first < 10
    assert len(read) <= 10 + 1024


def test_every_slot_is_drawn_as_often():
    # of 3 items in a buffer of 2 the first out is 0 or 1, evenly: chi-squared with 1 degree
    firsts = Counter(next(shuffled(range(3), 2, seed, 0)) for seed in range(2000))
    assert set(firsts) == {0, 1}
    assert sum((n - 1000) ** 2 / 1000 for n in firsts.values()) < 10.8  # p = 0.001
    slots = Counter(
        place for seed in range(300)
        for place, item in enumerate(shuffled(range(40), 8, seed, 1)) if item == 20
    )  # fmt: skip
    assert min(slots) >= 13
    assert len(slots) > 15


def test_draws_never_change():
    # as they were when this was written: a resumed run must go on as it began
    assert list(shuffled(range(8), 3, 42, 1)) == DRAWN


DRAWN = [1, 2, 4, 0, 5, 3, 7, 6]


# ---- visits


@pytest.mark.parametrize("captions", ["random", "first", "all"])
def test_an_epoch_visits_everything_once(captions):
    visits = list(stream().visits(captions, seed=3, epoch=1))
    ids = [example.image_id for example, _ in visits]
    if captions == "all":
        assert sorted(texts(visits)) == sorted(f"{i}/{c}" for i in range(15) for c in (0, 1))
    else:
        assert sorted(ids) == sorted(f"id{i}" for i in range(15))
    for example, chosen in visits:
        if captions == "random":
            assert chosen == caption_index(3, 1, example.image_id, 2)
        elif captions == "first":
            assert chosen == 0


def test_captions_are_those_of_a_dataset_that_is_all_there():
    from captionkit.data.order import visits

    whole = CaptionDataset.from_pairs([(e.source, e.captions) for e in examples(0, 15)], "made")
    streamed = StreamedDataset([lambda: iter(whole)], "made", DataConfig())
    for epoch in range(3):
        there = {whole[i].image_id: c for i, c in visits(whole, "random", 5, epoch).tolist()}
        assert {e.image_id: c for e, c in streamed.visits("random", 5, epoch)} == there


def test_shards_come_in_another_order_each_epoch():
    def order(epoch):
        streamed = stream(shards=(1,) * 8, shuffle_buffer=1)
        return [e.image_id for e, _ in streamed.visits("first", 0, epoch)]

    assert order(0) == [f"id{i}" for i in permutation(8, 0, 0)]
    assert order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))


@pytest.mark.parametrize("start", [0, 1, 7, 14, 15, 40])
def test_going_on_at_any_visit(start):
    whole = texts(stream().visits("random", 1, 2))
    assert texts(stream().visits("random", 1, 2, start)) == whole[start:]
    endless = texts(itertools.islice(stream().endless_visits("random", 1), 60))
    rest = itertools.islice(stream().endless_visits("random", 1, start), 60 - start)
    assert texts(rest) == endless[start:]
    assert endless[30:45] == whole


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_processes_share_the_visits_of_one(count):
    alone = texts(itertools.islice(stream().endless_visits("all", 9, 5), 48))
    shares = [
        texts(itertools.islice(stream().endless_visits("all", 9, 5, rank, count), 48 // count))
        for rank in range(count)
    ]
    assert [text for row in zip(*shares) for text in row] == alone
    epoch = [texts(stream().visits("first", 0, 0, 0, rank, count)) for rank in range(count)]
    assert sorted(itertools.chain(*epoch)) == sorted(f"{i}/0" for i in range(15))


def test_a_part_of_a_stream():
    ids = [e.image_id for e, _ in stream().first(5).visits("first", 0)]
    assert sorted(ids) == [f"id{i}" for i in range(5)]
    rest, held_out = stream().held_out(6)
    assert held_out.image_ids == [f"id{i}" for i in range(6)]
    seen = {e.image_id for epoch in range(3) for e, _ in rest.visits("random", 0, epoch)}
    assert seen == {f"id{i}" for i in range(6, 15)}
    assert len(list(rest.first(3).visits("first", 0))) == 3


def test_filters_say_at_the_end_of_an_epoch_what_they_left_out():
    def mixed():
        yield Example("a.jpg", ("one", "one two"), "a")
        yield Example("b.jpg", ("one",), "b")

    streamed = StreamedDataset([mixed], "made", DataConfig(min_caption_words=2))
    with pytest.warns(UserWarning, match="made: the filters leave out 1 of 2 images"):
        assert texts(streamed.visits("all", 0)) == ["one two"]
    streamed = StreamedDataset([mixed], "made", DataConfig(min_caption_words=3))
    with pytest.raises(DataError, match=r"leave out 2 of 2 images\. Nothing is left"):
        list(streamed.visits("all", 0))


def test_a_stream_that_is_held_out_whole():
    stream, held_out = StreamedDataset([lambda: examples(0, 3)], "made", DataConfig()).held_out(5)
    assert len(held_out) == 3
    with pytest.raises(DataError, match=r"3 are held out \(max_eval_samples\)\. Nothing is left"):
        next(stream.endless_visits("first", 0))


def test_streams_that_are_wrong():
    def broken(error):
        yield from examples(0, 2)
        raise error

    def message(*shards):
        with pytest.raises(DataError) as caught:
            list(StreamedDataset(shards, "made", DataConfig()).endless_visits("first", 0))
        return str(caught.value)

    assert "made is empty" in message(lambda: iter(()))
    assert "after 2 images of an epoch the stream broke off: ConnectionError: gone" in message(
        lambda: broken(ConnectionError("gone\nfor ever"))
    )
    assert message(lambda: broken(DataError("as it is"))) == "as it is"
    assert "has no caption" in message(lambda: iter([Example("x", (), "id")]))
    assert "empty caption" in message(lambda: iter([Example("x", (" ",), "id")]))


# ---- rows of datasets


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, shards=3, each=4, **columns):
    folder.mkdir(exist_ok=True)
    for s in range(shards):
        numbers = range(s * each, (s + 1) * each)
        table = columns or {"caption": [[f"{i}/0", f"{i}/1"] for i in numbers]}
        pq.write_table(
            pa.table({"image": [png(i) for i in numbers], **table}), folder / f"{s}.parquet"
        )
    return str(folder)


def test_parquet_as_a_stream_is_parquet_as_a_set(tmp_path):
    folder = write(tmp_path / "p")
    streamed = parquet.load(DataConfig(data_dir=folder, streaming=True), "train")
    assert len(streamed.shards) == 3
    ours = list(streamed.examples())
    there = list(parquet.load(DataConfig(data_dir=folder), "train"))
    assert [(e.source, e.captions) for e in ours] == [(e.source, e.captions) for e in there]
    assert ours[5].image_id == "00001/1"
    assert ours[5].image.getpixel((0, 0)) == (5, 0, 0)
    # ids stay what they are whatever the order of the shards
    by_id = {e.image_id: e.source for e in ours}
    for epoch in range(2):
        assert {e.image_id: e.source for e, _ in streamed.visits("first", 0, epoch)} == by_id


def test_rows_with_one_id_that_follow_one_another(tmp_path):
    folder = write(tmp_path / "p", 1, 4, text=["a", "b", "c", "d"], image_id=[7, 7, 8, 7])
    streamed = parquet.load(DataConfig(data_dir=folder, streaming=True), "train")
    assert [(e.image_id, e.captions) for e in streamed.examples()] == [
        ("7", ("a", "b")),
        ("8", ("c",)),
        ("7", ("d",)),
    ]


def test_hub_streams(tmp_path, monkeypatch):
    folder = write(tmp_path / "p")
    real, asked = datasets.load_dataset, []

    def load(*args, **kwargs):
        asked.append((args, kwargs))
        return real("parquet", data_dir=folder, streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load)
    config = DataConfig(dataset_id="user/set", streaming=True)
    streamed = hub.load(config, "train")
    assert asked == [(("user/set", None), {"streaming": True})]
    assert len(list(streamed.examples())) == 12
    assert hub.load(config, "validation") is None


def test_a_stream_from_the_hub_names_no_files_of_this_machine(tmp_path):
    for value in ("/etc/passwd", {"bytes": None, "path": "/etc/passwd"}, "http://a/b.jpg"):
        rows = datasets.Dataset.from_list([{"image": value, "text": "x"}]).to_iterable_dataset()
        streamed = StreamedDataset.from_hf(rows, "set", DataConfig(), None)
        expected = "allow_urls" if value == "http://a/b.jpg" else "cannot have images here"
        with pytest.raises(DataError, match=expected):
            list(streamed.examples())
        below = StreamedDataset.from_hf(rows, "set", DataConfig(), tmp_path)
        expected = "allow_urls" if value == "http://a/b.jpg" else "outside the data folder"
        with pytest.raises(DataError, match=expected):
            list(below.examples())
    for row, expected in (
        ({"image": "x", "alt": "x"}, r"no caption column.*Columns: image, alt"),
        ({"image": "x", "text": 3}, "should be text, found 3"),
    ):
        rows = datasets.Dataset.from_list([row]).to_iterable_dataset()
        streamed = StreamedDataset.from_hf(rows, "set", DataConfig(), tmp_path)
        with pytest.raises(DataError, match=expected):
            list(streamed.examples())


def test_a_stream_in_memory():
    rows = datasets.Dataset.from_dict({"image": ["a.jpg", "b.jpg"], "text": ["x", "y"]})
    with pytest.raises(DataError, match="streaming=True here as well"):
        load_splits(DataConfig(), 0, rows.to_iterable_dataset())
    features = datasets.Features({"image": datasets.Value("binary"), "text": rows.features["text"]})
    rows = rows.cast(features).to_iterable_dataset()
    train, validation = load_splits(
        DataConfig(streaming=True, max_eval_samples=1, captions="first"), 0, rows
    )
    assert [e.captions for e in train.examples()] == [("y",)]
    assert validation.all_captions() == ["x"]


# ---- validation


def test_validation_of_a_stream(tmp_path):
    folder = write(tmp_path / "p")
    settings_ = {"data_dir": folder, "streaming": True}
    with pytest.raises(ConfigError, match=r"max_eval_samples=N .*validation_file, or test_size=0"):
        load_splits(DataConfig(**settings_), seed=0)
    train, validation = load_splits(DataConfig(**settings_, test_size=0), seed=0)
    assert validation is None
    assert isinstance(train, StreamedDataset)
    train, validation = load_splits(DataConfig(**settings_, max_eval_samples=5), seed=0)
    assert (len(validation), len(list(train.examples()))) == (5, 7)
    assert validation[4].image.getpixel((0, 0)) == (4, 0, 0)
    found = load_dataset(**settings_, split="validation", max_eval_samples=2)
    assert found.image_ids == ["00000/0", "00000/1"]
    limited = load_splits(DataConfig(**settings_, max_eval_samples=5, max_train_samples=3), seed=0)[
        0
    ]
    assert len(list(limited.examples())) == 3


def test_an_own_validation_split(tmp_path):
    for name in ("train", "val"):
        write(tmp_path / name, 1, 6)
    settings_ = {"dataset": "parquet", "data_dir": str(tmp_path), "streaming": True}
    train, validation = load_splits(DataConfig(**settings_, max_eval_samples=4), seed=0)
    assert (len(list(train.examples())), len(validation)) == (6, 4)
    with pytest.raises(ConfigError, match="max_eval_samples"):
        load_splits(DataConfig(**settings_, test_size=0), seed=0)
    files = {f"{n}_file": str(tmp_path / w) for n, w in (("train", "train"), ("validation", "val"))}
    config = DataConfig(dataset="parquet", **files, streaming=True)
    train, validation = load_splits(config, seed=0)
    assert isinstance(validation, CaptionDataset)
    assert len(validation) == 6


def test_what_cannot_be_streamed(tmp_path):
    (tmp_path / "t.csv").write_text("image,caption\n")
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("image,caption\na.png,x\n")
    with pytest.raises(ConfigError, match="'csv' cannot be streamed; hub sets, parquet and web"):
        load_splits(DataConfig(train_file=str(tmp_path / "t.csv"), streaming=True), seed=0)
    folder = write(tmp_path / "p")
    with pytest.raises(ConfigError, match="group_by_content reads every image first"):
        load_splits(DataConfig(data_dir=folder, streaming=True, group_by_content=True), seed=0)
    with pytest.raises(ConfigError, match="shuffle_buffer=0"):
        DataConfig(shuffle_buffer=0)
    import captionkit

    with pytest.raises(ConfigError, match="needs max_steps"):
        captionkit.finetune(model="git-tiny", data_dir=folder, streaming=True)
