import shutil
import subprocess
import sys

import datasets
import pytest
from PIL import Image

from captionkit import registry
from captionkit.data import load_dataset, load_splits
from captionkit.data.dataset import CaptionDataset
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig


@pytest.fixture
def folder(tmp_path):
    """Ten images with two captions each."""
    for i in range(10):
        Image.new("RGB", (4, 3), (i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"a {i}\nb {i}")
    return tmp_path


def add_validation(folder):
    for name in ("train", "val"):
        (folder / name).mkdir()
    for file in list(folder.iterdir()):
        if file.is_file():
            file.rename(folder / ("val" if file.stem in "012" else "train") / file.name)


def test_a_part_is_held_out_where_there_is_no_validation(folder):
    train, validation = load_splits(DataConfig(data_dir=str(folder), test_size=0.25), seed=1)
    assert (len(train), len(validation)) == (7, 3)
    assert set(train.image_ids) | set(validation.image_ids) == {f"{i}.png" for i in range(10)}
    settings = {"data_dir": str(folder), "test_size": 0.25, "seed": 1}
    assert load_dataset(split="train", **settings).image_ids == train.image_ids
    assert load_dataset(split="validation", **settings).image_ids == validation.image_ids
    other = load_dataset(split="validation", **{**settings, "seed": 2})
    assert other.image_ids != validation.image_ids
    assert len(load_dataset("imagefolder", data_dir=str(folder))) == 9  # test_size is 0.1


def test_nothing_is_held_out_if_so_wished(folder):
    config = DataConfig(data_dir=str(folder), test_size=0)
    train, validation = load_splits(config, seed=1)
    assert (len(train), validation) == (10, None)
    assert len(load_dataset(data_dir=str(folder), test_size=0)) == 10
    with pytest.raises(DataError, match="no split 'validation', and test_size=0 holds none out"):
        load_dataset(data_dir=str(folder), test_size=0, split="validation")


def test_an_own_validation_split_is_used_whole(folder):
    add_validation(folder)
    train, validation = load_splits(DataConfig(data_dir=str(folder)), seed=1)
    assert (len(train), len(validation)) == (7, 3)
    assert load_dataset(data_dir=str(folder), split="val").image_ids == validation.image_ids
    with pytest.raises(DataError, match="no split 'test'"):
        load_dataset(data_dir=str(folder), split="test")
    # and is no longer one if it is what is trained on
    config = DataConfig(data_dir=str(folder), split="val", test_size=0.3)
    train, validation = load_splits(config, seed=1)
    assert sorted(train.image_ids + validation.image_ids) == ["0.png", "1.png", "2.png"]
    assert len(validation) == 1


def test_validation_does_not_need_the_training_images(folder):
    file = folder / "v.csv"
    file.write_text("image,caption\n1.png,x\n")
    dataset = load_dataset("csv", split="validation", validation_file=str(file))
    assert dataset.image_ids == ["1.png"]
    assert load_dataset(split="test", test_file=str(file)).image_ids == ["1.png"]


def test_limits_and_the_first_caption(folder):
    config = DataConfig(
        data_dir=str(folder), test_size=0.5, max_train_samples=2, max_eval_samples=3
    )
    train, validation = load_splits(config, seed=0)
    assert (len(train), len(validation)) == (2, 3)
    assert train.caption_counts().tolist() == [2, 2]
    whole = load_splits(DataConfig(data_dir=str(folder), test_size=0.5), seed=0)
    assert train.image_ids == whole[0].image_ids[:2]

    config = DataConfig(data_dir=str(folder), captions="first")
    for part in load_splits(config, seed=0):
        assert set(part.caption_counts().tolist()) == {1}
    assert len(load_dataset(data_dir=str(folder), max_train_samples=4)) == 4
    dataset = load_dataset(data_dir=str(folder), split="validation", max_eval_samples=1)
    assert len(dataset) == 1


def test_names_are_guessed(folder, monkeypatch):
    asked = []

    def source(name):
        def load(config, split):
            asked.append((name, config.dataset, config.dataset_id))
            return CaptionDataset.from_pairs([("a", "x"), ("b", "y")], name)

        return load

    monkeypatch.setattr(registry, "get_dataset", source)
    (folder / "annotations").mkdir()
    for settings in (
        {"train_file": "a.csv"},
        {"train_file": "a.TSV"},
        {"train_file": "a.jsonl"},
        {"train_file": "a.json", "data_dir": "x"},
        {"data_dir": str(folder)},
        {"dataset_id": "user/set"},
        {"train_file": "a.parquet"},
        {"train_file": "shards/{00..10}.tar"},
        {"train_file": "a.tar.gz"},
    ):
        load_splits(DataConfig(**settings), seed=0)
        load_splits(DataConfig(**settings, dataset="critters"), seed=0)
    (folder / "annotations" / "captions_val2014.json").touch()
    load_splits(DataConfig(data_dir=str(folder)), seed=0)
    load_splits(DataConfig(dataset="user/set"), seed=0)
    shutil.rmtree(folder / "annotations")
    names = list(dict.fromkeys(asked))
    asked.clear()
    for name in ("results.csv", "Flickr8k.token.txt", "x.tar", "y.parquet"):
        (folder / "new").mkdir(exist_ok=True)
        (folder / "new" / name).touch()
        load_splits(DataConfig(data_dir=str(folder / "new")), seed=0)
        if name in ("x.tar", "y.parquet"):
            load_splits(DataConfig(train_file=str(folder / "new")), seed=0)
        shutil.rmtree(folder / "new")
    assert list(dict.fromkeys(name for name, *_ in asked)) == [
        "flickr30k", "flickr8k", "webdataset", "parquet",
    ]  # fmt: skip
    assert [name for name in names if name[0] != "critters"] == [
        ("csv", "csv", None),
        ("jsonl", "jsonl", None),
        ("imagefolder", "imagefolder", None),
        ("hub", "hub", "user/set"),
        ("parquet", "parquet", None),
        ("webdataset", "webdataset", None),
        ("coco", "coco", None),
    ]


def test_settings_that_are_wrong(folder):
    with pytest.raises(ConfigError, match="did you mean 'data_dir'"):
        load_dataset("imagefolder", data_dri=str(folder))
    with pytest.raises(ConfigError, match="test_size=2"):
        load_dataset("imagefolder", data_dir=str(folder), test_size=2)
    with pytest.raises(ConfigError, match=r"Say which data to use.*critters"):
        load_dataset()
    with pytest.raises(ConfigError, match=r"should end in \.csv, "):
        load_dataset(train_file="a.xlsx")
    with pytest.raises(ConfigError, match="did you mean 'critters'"):
        load_dataset("criters")
    with pytest.raises(ConfigError, match="Give it as data_dir"):
        load_dataset(f"{folder}/")
    with pytest.raises(ConfigError, match="Give it as train_file"):
        load_dataset(str(folder / "1.txt"))
    with pytest.raises(ConfigError, match="name two datasets"):
        load_dataset("user/set", dataset_id="user/other")
    with pytest.raises(DataError, match="leaves no image for validation"):
        load_splits(DataConfig(data_dir=str(folder), test_size=1e-9), seed=0)


def test_every_source_is_registered():
    expected = {
        "critters", "pokemon-blip", "coco", "imagefolder", "jsonl", "csv", "hub", "flickr8k",
        "flickr30k", "parquet", "webdataset",
    }  # fmt: skip
    sources = {source.name: source for source in registry.list_datasets()}
    assert expected <= set(sources)
    assert all(sources[name].ready and sources[name].summary for name in expected)


# ---- data in memory

PAIRS = [(f"{i}.jpg", [f"a {i}", f"b {i}"]) for i in range(10)]


def table(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"image": [f"{i}.jpg" for i in range(count)], "text": ["x"] * count}
    )


@pytest.mark.parametrize(
    "data", [PAIRS, table(10), CaptionDataset.from_pairs(PAIRS, "own"), iter(PAIRS)]
)
def test_data_in_memory(data):
    data = list(data) if not hasattr(data, "__len__") else data
    train, validation = load_splits(DataConfig(test_size=0.3, max_eval_samples=2), 0, data)
    assert (len(train), len(validation)) == (7, 2)
    assert not set(train.image_ids) & set(validation.image_ids)
    # asked for by itself it is whole, whatever the split
    for split in ("train", "validation"):
        assert len(load_dataset(data, split=split)) == 10
    assert load_dataset(data, captions="first").caption_counts().tolist() == [1] * 10


def test_a_dataset_dict_has_its_own_splits():
    both = datasets.DatasetDict({"train": table(5), "validation": table(2)})
    train, validation = load_splits(DataConfig(), 0, both)
    assert (len(train), len(validation)) == (5, 2)
    assert len(load_dataset(both, split="validation")) == 2
    alone = datasets.DatasetDict({"train": table(5)})
    train, validation = load_splits(DataConfig(test_size=0.4), 0, alone)
    assert (len(train), len(validation)) == (3, 2)
    with pytest.raises(DataError, match="Splits: test"):
        load_dataset(datasets.DatasetDict({"test": table(5)}))


@pytest.mark.parametrize("data", [3, object(), [], table(0), [("a.jpg", "")], ["a.jpg"]])
def test_data_in_memory_that_is_none(data):
    with pytest.raises(DataError):
        load_splits(DataConfig(), 0, data)


def test_a_stream_is_refused():
    with pytest.raises(DataError, match="Load it without streaming=True"):
        load_splits(DataConfig(), 0, table(3).to_iterable_dataset())


def test_the_module_is_light():
    code = (
        "import sys, captionkit.data; "
        "print(sorted({'numpy', 'PIL', 'torch', 'transformers', 'datasets', 'pyarrow'} "
        "& set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
