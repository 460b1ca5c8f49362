import json
from pathlib import Path

import pytest

from captionkit.data import load_dataset
from captionkit.data.coco import load
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig


@pytest.fixture
def root(tmp_path) -> Path:
    """Three images of train2014 and two of val2014, one caption each."""
    for part, ids in (("train2014", (9, 25, 30)), ("val2014", (42, 74))):
        names = {i: f"COCO_{part}_{i:012d}.jpg" for i in ids}
        (tmp_path / part).mkdir()
        for name in names.values():
            (tmp_path / part / name).touch()
        content = {
            "images": [{"id": i, "file_name": name} for i, name in names.items()],
            "annotations": [{"image_id": i, "caption": f"caption {i}"} for i in ids],
        }
        (tmp_path / f"captions_{part}.json").write_text(json.dumps(content))
    return tmp_path


def config(root: Path, **lists: str) -> DataConfig:
    files = {}
    for split, text in lists.items():
        (root / f"{split}.txt").write_text(text)
        files[f"{split}_file"] = str(root / f"{split}.txt")
    return DataConfig(data_dir=str(root), **files)


@pytest.mark.parametrize(
    "text",
    [
        "42\n9\n",
        "\ufeff# ours\n000000000042\n\n9 \n42\n",
        "COCO_val2014_000000000042.jpg\r\nCOCO_train2014_000000000009.jpg",
        "val2014/COCO_val2014_000000000042.jpg 42\ntrain2014/COCO_train2014_000000000009.jpg 9\n",
    ],
)
def test_ids_and_file_names_over_both_annotation_files(root, text):
    given = config(root, train=text, validation="74\n25", test="30")
    train = load(given, "train")
    assert train.image_ids == ["42", "9"]
    assert train.all_captions() == ["caption 42", "caption 9"]
    assert train[0].source == str(root / "val2014" / "COCO_val2014_000000000042.jpg")
    assert load(given, "validation").image_ids == load(given, "val").image_ids == ["74", "25"]
    assert load(given, "test").image_ids == ["30"]


def test_without_a_list_of_validation_images_some_are_held_out(root):
    given = config(root, train="9\n25\n30\n42")
    assert load(given, "validation") is None
    settings = {"data_dir": str(root), "train_file": given.train_file, "test_size": 0.25}
    held_out = load_dataset("coco", "validation", **settings).image_ids
    assert sorted(held_out + load_dataset("coco", "train", **settings).image_ids) == [
        "25", "30", "42", "9"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "9\n77\nx.jpg"}, r"not in captions_train2014\.json and .*: 2 \(77, x\.jpg\)"),
        ({"train": "# none\n"}, "names no image"),
        ({"train": "9\n25", "validation": "74\n25"}, r"both in .*train\.txt and .*: 1 \(25\)"),
        ({"validation": "9"}, "there is no train_file"),
    ],
)
def test_lists_that_are_wrong(root, lists, message):
    with pytest.raises(DataError, match=message):
        load(config(root, **lists), "train")


def test_files_that_are_no_lists(root):
    given = config(root, train="9")
    Path(str(given.train_file)).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as a list of images"):
        load(given, "train")
    Path(str(given.train_file)).unlink()
    with pytest.raises(DataError, match="No such file"):
        load(given, "train")


def test_lists_do_not_go_with_karpathys_splits(root):
    given = DataConfig(data_dir=str(root), dataset_config="karpathy", train_file="x.txt")
    with pytest.raises(ConfigError, match="give one of the two"):
        load(given, "train")
