import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captionkit.data import load_dataset, load_splits
from captionkit.data.parquet import load
from captionkit.errors import DataError
from captionkit.recipe import DataConfig


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(file, first=0, count=3, form="bytes", **columns) -> str:
    numbers = range(first, first + count)
    file.parent.mkdir(parents=True, exist_ok=True)
    if form == "path":
        for i in numbers:
            (file.parent / f"{i}.png").write_bytes(png(i))
        images = [f"{i}.png" for i in numbers]
    elif form == "struct":
        images = [{"bytes": png(i), "path": f"{i}.png"} for i in numbers]
    else:
        images = [png(i) for i in numbers]
    columns = columns or {"caption": [f"caption {i}" for i in numbers]}
    pq.write_table(pa.table({"image": images, **columns}), file)
    return str(file)


def reds(dataset) -> list[int]:
    return [np.asarray(example.image)[0, 0, 0].item() for example in dataset]


@pytest.mark.parametrize("form", ["bytes", "struct", "path"])
def test_forms_of_the_image_column(tmp_path, form, monkeypatch):
    write(tmp_path / "train-0.parquet", 0, 3, form)
    write(tmp_path / "train-1.parquet", 3, 2, form)
    monkeypatch.chdir("/")
    dataset = load(DataConfig(data_dir=str(tmp_path)), "train")
    assert reds(dataset) == [0, 1, 2, 3, 4]
    assert [e.captions for e in dataset] == [(f"caption {i}",) for i in range(5)]
    if form != "path":
        # as they were, not encoded anew, and in a file that is memory-mapped
        assert [e.source for e in dataset] == [png(i) for i in range(5)]
        assert dataset.images.rows.cache_files


def test_what_datasets_wrote_itself(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "text": [datasets.Value("string")]})
    rows = {"image": [{"bytes": png(7), "path": None}], "text": [["a", "b"]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "x.parquet")
    dataset = load(DataConfig(train_file=str(tmp_path / "x.parquet")), "train")
    assert dataset[0].captions == ("a", "b")
    assert reds(dataset) == [7]


def test_several_rows_an_image(tmp_path):
    columns = {"text": ["a", "b", "c"], "image_id": [5, 6, 5]}
    write(tmp_path / "x.parquet", **columns)
    dataset = load(DataConfig(data_dir=str(tmp_path)), "train")
    assert {e.image_id: e.captions for e in dataset} == {"5": ("a", "c"), "6": ("b",)}


def test_splits_and_names(tmp_path):
    write(tmp_path / "data" / "train-00000-of-00001.parquet", 0, 4)
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", 4, 2)
    train, validation = load_splits(DataConfig(data_dir=str(tmp_path)), seed=0)
    assert (reds(train), reds(validation)) == ([0, 1, 2, 3], [4, 5])
    file = write(tmp_path / "own" / "a.parquet", 9, 2, alt=["x", "y"])
    dataset = load_dataset(train_file=file, caption_column="alt", test_size=0)
    assert dataset.all_captions() == ["x", "y"]
    assert "a.parquet" in dataset.name


def message(**settings) -> str:
    with pytest.raises(DataError) as error:
        load(DataConfig(**settings), "train")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_paths_stay_in_the_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    for path in ("../a.png", str(tmp_path / "a.png")):
        for images in ([path], [{"bytes": None, "path": path}]):
            file = tmp_path / "data" / "x.parquet"
            file.parent.mkdir(exist_ok=True)
            pq.write_table(pa.table({"image": images, "text": ["x"]}), file)
            assert "outside the data folder" in message(train_file=str(file))
            allowed = DataConfig(train_file=str(file), allow_outside_paths=True)
            assert reds(load(allowed, "train")) == [1]
            wider = DataConfig(train_file=str(file), data_dir=str(tmp_path))
            if path != "../a.png":
                assert reds(load(wider, "train")) == [1]


def test_urls_have_to_be_allowed(tmp_path):
    pq.write_table(pa.table({"image": ["http://a/b.jpg"], "text": ["x"]}), tmp_path / "x.parquet")
    assert "only with allow_urls" in message(data_dir=str(tmp_path))
    dataset = load(DataConfig(data_dir=str(tmp_path), allow_urls=True), "train")
    assert str(dataset[0].source) == "http://a/b.jpg"


def test_files_that_are_wrong(tmp_path):
    good = write(tmp_path / "good" / "a.parquet")
    content = (tmp_path / "good" / "a.parquet").read_bytes()
    for name, data, expected in (
        ("words", b"these are words", "is not a Parquet file (15 bytes)"),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        ("empty", b"", "is not a Parquet file (0 bytes)"),
        ("cut", content[: len(content) // 2], "was cut off"),
        ("damaged", b"PAR1" + b"x" * 100 + b"PAR1", "cannot be read"),
    ):
        (tmp_path / f"{name}.parquet").write_bytes(data)
        assert expected in message(train_file=str(tmp_path / f"{name}.parquet"))
    assert "no column 'alt'" in message(train_file=good, caption_column="alt")
    write(tmp_path / "good" / "b.parquet", number=[1, 2, 3])
    assert "cannot be read" in message(data_dir=str(tmp_path / "good"))
    file = write(tmp_path / "n" / "n.parquet", caption=[1, 2, 3])
    assert "should be text" in message(train_file=file)
    file = write(tmp_path / "e" / "e.parquet", caption=["a", " ", "c"])
    assert "empty caption: 1 (1)" in message(train_file=file)
    file = write(tmp_path / "0" / "0.parquet", 0, 0, caption=pa.array([], pa.string()))
    assert "is empty" in message(train_file=file)
    image = pa.table({"image": [1.5], "text": ["x"]})
    pq.write_table(image, tmp_path / "float.parquet")
    assert "should hold images" in message(train_file=str(tmp_path / "float.parquet"))
