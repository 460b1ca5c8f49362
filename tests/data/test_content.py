import hashlib
import io
import shutil

import pytest
from PIL import Image

from captionkit.data import content, load_splits
from captionkit.data.content import content_hashes, image_sizes
from captionkit.data.dataset import CaptionDataset
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig


def png(value: int, size=(4, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path / "cache"))
    for i in range(12):
        (tmp_path / f"{i:02d}.png").write_bytes(png(i % 5, (4 + i % 5, 3)))
        (tmp_path / f"{i:02d}.txt").write_text(f"text {i}")
    return tmp_path


def whole(folder) -> CaptionDataset:
    return load_splits(DataConfig(data_dir=str(folder), test_size=0), seed=0)[0]


def test_equal_bytes_have_equal_keys(folder):
    dataset = whole(folder)
    keys = content_hashes(dataset)
    digests = [hashlib.sha256((folder / name).read_bytes()).digest() for name in dataset.image_ids]
    assert [keys.index(key) for key in keys] == [digests.index(digest) for digest in digests]
    assert len(set(keys)) == 5
    # in memory as on disk
    rows = [{"image": png(i % 5, (4 + i % 5, 3)), "captions": ["x"], "image_id": i} for i in (0, 3)]
    assert content_hashes(CaptionDataset.from_rows(rows, "made")) == [keys[0], keys[3]]


def test_unreadable_images_equal_nothing(folder):
    dataset = whole(folder)
    for name in ("00.png", "01.png"):
        (folder / name).unlink()
    keys = content_hashes(dataset)
    assert keys[0] != keys[1]
    assert image_sizes(dataset)[:3].tolist() == [[0, 0], [0, 0], [6, 3]]


def test_sizes_are_those_of_pillow(folder):
    dataset = whole(folder)
    assert image_sizes(dataset).tolist() == [list(example.image.size) for example in dataset]


def test_files_are_looked_at_once_and_again_when_one_changes(folder, monkeypatch):
    looked = []
    real = content._bytes
    monkeypatch.setattr(content, "_bytes", lambda source: looked.append(source) or real(source))
    dataset = whole(folder)
    first = content_hashes(dataset)
    assert len(looked) == 12
    assert content_hashes(whole(folder)) == first
    assert len(looked) == 12
    (folder / "03.png").write_bytes(png(99))
    changed = content_hashes(dataset)
    assert len(looked) == 24
    assert [a == b for a, b in zip(first, changed)] == [i != 3 for i in range(12)]
    # what the cache holds may be damaged, or not be writable at all
    for file in (folder / "cache" / "facts").iterdir():
        file.write_bytes(b"damaged")
    assert content_hashes(dataset) == changed
    shutil.rmtree(folder / "cache")
    (folder / "cache").write_text("in the way")
    assert content_hashes(dataset) == changed


@pytest.mark.parametrize("seed", range(8))
def test_equal_files_are_on_one_side_of_the_split(folder, seed):
    config = DataConfig(data_dir=str(folder), test_size=0.2, group_by_content=True)
    train, validation = load_splits(config, seed)
    assert len(train) + len(validation) == 12
    assert not set(content_hashes(train)) & set(content_hashes(validation))
    assert len(validation) >= 3  # a fifth, and the rest of the last group
    plain = load_splits(DataConfig(data_dir=str(folder), test_size=0.2), seed)
    assert len(plain[1]) == 3


def test_without_the_setting_equal_files_do_leak(folder):
    # so that the test above can fail
    leaks = 0
    for seed in range(8):
        train, validation = load_splits(DataConfig(data_dir=str(folder), test_size=0.2), seed)
        leaks += bool(set(content_hashes(train)) & set(content_hashes(validation)))
    assert leaks > 4


def test_without_equal_files_the_setting_changes_nothing(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png(i))
        (tmp_path / f"{i}.txt").write_text("x")
    parts = [
        [part.image_ids for part in load_splits(
            DataConfig(data_dir=str(tmp_path), test_size=0.3, group_by_content=on), seed=3)]
        for on in (True, False)
    ]  # fmt: skip
    assert parts[0] == parts[1]


def test_one_picture_only(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(1))
        (tmp_path / f"{i}.txt").write_text("x")
    config = DataConfig(data_dir=str(tmp_path), group_by_content=True)
    with pytest.raises(DataError, match="all 4 images are the same picture"):
        load_splits(config, seed=0)


def test_splits_of_a_set_that_share_pictures_are_reported(folder):
    for name in ("train", "val"):
        (folder / name).mkdir()
    for file in list(folder.glob("*.*")):
        file.rename(folder / ("val" if file.stem in ("10", "11") else "train") / file.name)
    config = DataConfig(data_dir=str(folder), group_by_content=True)
    with pytest.warns(UserWarning, match=r"byte for byte.*2 \(10\.png is 05\.png, 11\.png is 06"):
        load_splits(config, seed=0)
    load_splits(DataConfig(data_dir=str(folder)), seed=0)


def test_a_csv_that_repeats_an_image_has_it_on_one_side(folder):
    rows = [f"{i % 12:02d}.png,caption {i}" for i in range(60)]
    rows += [f"./{i:02d}.png,dotted {i}" for i in range(12)]
    (folder / "t.csv").write_text("image,caption\n" + "\n".join(rows))
    for seed in range(5):
        config = DataConfig(train_file=str(folder / "t.csv"), test_size=0.3)
        train, validation = load_splits(config, seed)
        assert (len(train), len(validation)) == (8, 4)
        assert not set(train.image_ids) & set(validation.image_ids)
        assert not set(train.all_captions()) & set(validation.all_captions())
        assert set(train.caption_counts()) == {6}


def test_not_of_a_stream(folder):
    with pytest.raises(ConfigError, match="cannot be streamed"):
        load_splits(DataConfig(data_dir=str(folder), streaming=True), seed=0)
