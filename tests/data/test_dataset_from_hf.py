"""Datasets that wrap a `datasets.Dataset`."""

import io
from collections import Counter

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captionkit.data.dataset import CaptionDataset
from captionkit.errors import DataError, ImageError


def png(value: int, size=(3, 2)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def hf(images, **columns_):
    return datasets.Dataset.from_dict({"image": images, **columns_}).cast_column(
        "image", datasets.Image()
    )


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_wrapped_dataset_keeps_the_encoded_bytes():
    encoded = [jpeg(i) for i in range(4)]
    source = hf([{"bytes": b, "path": None} for b in encoded], text=["a", "b", "c", "d"])
    dataset = CaptionDataset.from_hf(source, "made")
    assert [e.source for e in dataset] == encoded
    assert [e.captions for e in dataset] == [("a",), ("b",), ("c",), ("d",)]
    assert dataset.image_ids == ["0", "1", "2", "3"]
    assert dataset[0].image.mode == "RGB"
    # and one with an order of its own, and a format set
    part = source.select([3, 1]).with_format("numpy")
    assert [(e.source, e.captions) for e in CaptionDataset.from_hf(part, "made")] == [
        (encoded[3], ("d",)),
        (encoded[1], ("b",)),
    ]


def test_paths_and_bytes_are_images_too(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(9))
    path = str(tmp_path / "a.jpg")
    by_path = datasets.Dataset.from_dict({"file_name": [path], "caption": ["x"]})
    by_bytes = datasets.Dataset.from_dict({"image": [jpeg(9)], "caption": ["x"]})
    by_struct = datasets.Dataset.from_dict(
        {"image": [{"bytes": jpeg(9), "path": "a.jpg"}], "caption": ["x"]}
    )
    assert CaptionDataset.from_hf(by_path, "made")[0].source == path
    assert CaptionDataset.from_hf(by_bytes, "made")[0].source == jpeg(9)
    assert CaptionDataset.from_hf(by_struct, "made")[0].source == jpeg(9)
    as_image = by_path.cast_column("file_name", datasets.Image())
    assert CaptionDataset.from_hf(as_image, "made")[0].source == path


@given(
    table=st.lists(
        st.tuples(st.integers(0, 5), st.lists(st.sampled_from("abc"), min_size=1, max_size=3)),
        min_size=1,
        max_size=20,
    ),
    start=st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_rows_with_the_same_id_are_one_image(table, start):
    table = [(9, ["z"])] * start + table
    expected: dict[str, list[str]] = {}
    for image_id, captions in table[start:]:
        expected.setdefault(str(image_id), []).extend(captions)
    source = datasets.Dataset.from_dict(
        {
            "image": [bytes([image_id]) for image_id, _ in table],
            "caption": [captions for _, captions in table],
            "image_id": [image_id for image_id, _ in table],
        }
    ).select(range(start, len(table)))  # a slice: offsets that do not start at 0
    dataset = CaptionDataset.from_hf(source, "made")
    assert {e.image_id: list(e.captions) for e in dataset} == expected
    assert [e.source for e in dataset] == [bytes([int(i)]) for i in expected]


def test_columns_are_found_or_named():
    table = datasets.Dataset.from_dict({"picture": ["a.jpg"], "alt": ["x"], "text": ["y"]})
    with pytest.raises(DataError, match=r"picture, alt, text\..*image_column"):
        CaptionDataset.from_hf(table, "made")
    with pytest.raises(DataError, match="did you mean 'picture'"):
        CaptionDataset.from_hf(table, "made", image_column="pictures")
    assert CaptionDataset.from_hf(table, "made", "picture").captions_of(0) == ("y",)
    assert CaptionDataset.from_hf(table, "made", "picture", "alt").captions_of(0) == ("x",)
    with pytest.raises(DataError, match="caption_column"):
        CaptionDataset.from_hf(table.remove_columns(["alt", "text"]), "made", "picture")


@pytest.mark.parametrize(
    ("columns_", "message"),
    [
        ({"image": ["a.jpg"], "text": [3]}, "captions should be text"),
        ({"image": ["a.jpg"], "text": [[["x"]]]}, "captions should be text"),
        ({"image": [3], "text": ["x"]}, "should hold images"),
        ({"image": ["http://a/b.jpg"], "text": ["x"]}, "holds URLs"),
        ({"image": [{"bytes": None, "path": "http://a/b"}], "text": ["x"]}, "holds URLs"),
        ({"image": ["a.jpg", "b.jpg"], "text": ["x", None]}, r"empty caption: 1 \(1\)"),
        ({"image": ["a.jpg", "b.jpg"], "text": [["x"], None]}, r"without a caption: 1 \(1\)"),
        ({"image": ["a.jpg", "b.jpg"], "text": [["x"], [None]]}, r"empty caption: 1 \(1\)"),
        ({"image": ["a"], "text": ["x"], "image_id": [None]}, "no image_id|captions should"),
    ],
)
def test_columns_of_the_wrong_kind(columns_, message):
    table = datasets.Dataset.from_dict(columns_)
    if message.startswith("no image_id"):
        table = table.cast_column("image_id", datasets.Value("string"))
        message = "1 images have no image_id"
    with pytest.raises(DataError, match=message):
        CaptionDataset.from_hf(table, "made")


def test_a_row_without_an_image_is_an_image_error():
    table = hf([None, {"bytes": png(1), "path": None}], text=["x", "y"])
    dataset = CaptionDataset.from_hf(table, "made")
    assert dataset[1].image.size == (3, 2)
    assert dataset[0].image_id == "0"
    with pytest.raises(ImageError, match="empty"):
        _ = dataset[0].image


def test_something_else_than_a_dataset():
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"a": [1]})})
    with pytest.raises(DataError, match=r"one of the splits \['train'\]"):
        CaptionDataset.from_hf(splits, "made")
    with pytest.raises(DataError, match="found list"):
        CaptionDataset.from_hf([], "made")


def test_what_datasets_itself_reads_agrees():
    # against datasets' own access, row by row, over several batches
    encoded = [png(i % 256, (i % 5 + 1, 3)) for i in range(300)]
    source = hf(
        [{"bytes": b, "path": None} for b in encoded], text=[f"caption {i}" for i in range(300)]
    )
    dataset = CaptionDataset.from_hf(source, "made")
    shuffled = source.shuffle(seed=3)
    ours = CaptionDataset.from_hf(shuffled, "made")
    for i in (0, 64, 299):
        assert dataset[i].captions == (source[i]["text"],)
        assert ours[i].captions == (shuffled[i]["text"],)
        np.testing.assert_array_equal(ours[i].image, shuffled[i]["image"].convert("RGB"))
    assert Counter(ours.all_captions()) == Counter(dataset.all_captions())
