import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captionkit.data import load_dataset, load_splits
from captionkit.data.dataset import CaptionDataset
from captionkit.data.filters import filtered, passing
from captionkit.errors import ConfigError, DataError, ImageError
from captionkit.recipe import DataConfig


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


def made(*captions: list[str], sizes=None) -> CaptionDataset:
    sizes = sizes or [(4, 4)] * len(captions)
    rows = (
        {"image": jpeg(*size), "captions": texts, "image_id": f"id{i}"}
        for i, (size, texts) in enumerate(zip(sizes, captions))
    )
    return CaptionDataset.from_rows(rows, "made")


def kept(dataset) -> dict[str, tuple[str, ...]]:
    return {example.image_id: example.captions for example in dataset}


def test_short_and_long_captions():
    dataset = made(["one", "one two", "one two three"], ["x"], ["a  b\tc\nd", "e f"])
    with pytest.warns(UserWarning, match="captions of at least") as caught:
        found = filtered(dataset, DataConfig(min_caption_words=2, max_caption_words=3))
    assert kept(found) == {"id0": ("one two", "one two three"), "id2": ("e f",)}
    assert [str(w.message) for w in caught] == [
        "made: only captions of at least 2 and at most 3 words are used: 3 of 6 left out, and with "
        "them the images that have no other: 1 (id1)."
    ]
    with pytest.warns(UserWarning, match=r"every image keeps one\. They are of 1 \(id0\)"):
        found = filtered(made(["a", "a b"], ["c d"]), DataConfig(min_caption_words=2))
    assert kept(found) == {"id0": ("a b",), "id1": ("c d",)}
    assert found[1].image.size == (4, 4)


def test_nothing_is_said_where_nothing_is_left_out():
    dataset = made(["a b"], ["c d e"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = DataConfig(min_caption_words=2, max_caption_words=3, min_image_size=4)
        assert filtered(dataset, config) is dataset
        assert filtered(dataset, DataConfig()) is dataset


TEXTS = st.lists(
    st.lists(st.text("ab \u2003\n", min_size=1).filter(str.strip), min_size=1, max_size=4),
    min_size=1,
    max_size=8,
)


@given(TEXTS, st.integers(1, 4), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_what_is_kept_is_what_a_loop_keeps(captions, least, more):
    config = DataConfig(min_caption_words=least, max_caption_words=least + more)
    dataset = made(*captions)
    expected = {}
    for i, texts in enumerate(captions):
        fitting = tuple(t for t in texts if least <= len(t.split()) <= least + more)
        if fitting:
            expected[f"id{i}"] = fitting
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not expected:
            with pytest.raises(DataError, match="none of its"):
                filtered(dataset, config)
        else:
            assert kept(filtered(dataset, config)) == expected
    one_by_one = (passing(example, config) for example in dataset)
    assert kept(example for example in one_by_one if example) == expected


SIZES = [(10, 20), (20, 10), (10, 10), (100, 15), (9, 100), (101, 50)]


def test_small_and_large_images():
    dataset = made(*[["x"]] * 6, sizes=SIZES)
    config = DataConfig(min_image_size=10, max_image_size=100)
    with pytest.warns(UserWarning, match=r"at least 10 and at most 100 pixels.*2 \(id4, id5\)"):
        found = filtered(dataset, config)
    assert found.image_ids == ["id0", "id1", "id2", "id3"]
    assert [found[i].image.size for i in range(4)] == SIZES[:4]
    assert [passing(e, config) is not None for e in dataset] == [True] * 4 + [False] * 2
    with pytest.raises(DataError, match="none of its 6 images is left"):
        filtered(dataset, DataConfig(min_image_size=1000))


def test_an_image_that_cannot_be_read_is_not_the_filters_affair(tmp_path):
    Image.new("L", (50, 50)).save(tmp_path / "b.png")
    Image.new("L", (5, 5)).save(tmp_path / "c.png")
    (tmp_path / "a.png").write_bytes(b"words")
    pairs = [(str(tmp_path / f"{name}.png"), "x") for name in "abcd"]
    dataset = CaptionDataset.from_pairs(pairs, "made")
    with pytest.warns(UserWarning, match="left out: 1"):
        found = filtered(dataset, DataConfig(min_image_size=10))
    assert [name[-5] for name in found.image_ids] == ["a", "b", "d"]
    with pytest.raises(ImageError, match="not an image"):
        _ = found[0].image


def test_a_bomb_is_larger_than_every_limit(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    dataset = CaptionDataset.from_pairs([(str(tmp_path / f"{n}.png"), "x") for n in "ab"], "made")
    with pytest.warns(UserWarning, match=r"left out: 1 \(.*a\.png\)"):
        found = filtered(dataset, DataConfig(max_image_size=5000))
    assert len(found) == 1


def test_filters_of_both_splits_and_before_the_share_is_held_out(tmp_path):
    for i in range(10):
        Image.new("L", (4 + i, 4 + i)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("two words\none" if i % 2 else "two words")
    config = DataConfig(
        data_dir=str(tmp_path), min_caption_words=2, min_image_size=6, test_size=0.25
    )
    with pytest.warns(UserWarning, match="left out") as caught:
        train, validation = load_splits(config, seed=0)
    assert len(caught) == 2
    assert (len(train), len(validation)) == (6, 2)
    assert set(train.all_captions() + validation.all_captions()) == {"two words"}
    with pytest.warns(UserWarning, match="left out: 9"):
        assert len(load_dataset(data_dir=str(tmp_path), min_image_size=13, test_size=0)) == 1


def test_limits_that_cannot_be():
    for settings_ in ({"min_caption_words": 5, "max_caption_words": 4}, {"min_image_size": 0}):
        with pytest.raises(ConfigError):
            DataConfig(**settings_)
    with pytest.raises(ConfigError, match="min_image_size=9 is more than max_image_size=8"):
        DataConfig(min_image_size=9, max_image_size=8)


def test_images_without_any_caption_stay():
    # the images of a test split, which have none to be filtered by
    dataset = made(["a", "a b"], ["c"])
    mask = np.array([False, True, False])
    assert kept(dataset.keep_captions(mask)) == {"id0": ("a b",)}
