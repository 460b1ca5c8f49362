import json
from pathlib import Path

import pytest
from PIL import Image

from captionkit.data.coco import is_coco, load
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "coco-mini"


def make(root: Path, part: str = "train2017", count: int = 3) -> dict:
    """COCO's layout with `count` images, two captions each, in mixed order."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / part).mkdir()
    images, annotations = [], []
    for i in range(count):
        images.append({"id": 100 - i, "file_name": f"{i:012d}.jpg", "height": 3, "width": 4})
        Image.new("RGB", (4, 3), (i, 0, 0)).save(root / part / f"{i:012d}.jpg")
    for k in (0, 1):
        for i in reversed(range(count)):
            annotations.append(
                {"id": 10 * i + k, "image_id": 100 - i, "caption": f"{part} {i} {k} \n"}
            )
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    write(root, part, content)
    return content


def write(root: Path, part: str, content) -> Path:
    file = root / "annotations" / f"captions_{part}.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def config(root: Path, **settings) -> DataConfig:
    return DataConfig(data_dir=str(root), **settings)


def test_the_official_layout(tmp_path):
    make(tmp_path)
    make(tmp_path, "val2017", 2)
    train, validation = load(config(tmp_path), "train"), load(config(tmp_path), "validation")
    assert train.image_ids == ["100", "99", "98"]
    assert train.captions_of(1) == ("train2017 1 0", "train2017 1 1")
    assert train[2].source == str(tmp_path / "train2017" / "000000000002.jpg")
    assert train[2].image.size == (4, 3)
    assert validation.captions_of(0) == ("val2017 0 0", "val2017 0 1")
    assert load(config(tmp_path), "val").image_ids == validation.image_ids
    assert load(config(tmp_path), "test") is None
    assert is_coco(tmp_path)
    assert not is_coco(tmp_path / "train2017")


def test_the_year(tmp_path):
    make(tmp_path)
    make(tmp_path, "train2014")
    with pytest.raises(DataError, match="2014 and 2017: choose one with dataset_config"):
        load(config(tmp_path), "train")
    chosen = load(config(tmp_path, dataset_config="2014"), "train")
    assert chosen.captions_of(0)[0] == "train2014 0 0"
    assert load(config(tmp_path, dataset_config="2014"), "validation") is None
    with pytest.raises(ConfigError, match="2015"):
        load(config(tmp_path, dataset_config="2015"), "train")


def test_folders_that_are_not_coco(tmp_path):
    with pytest.raises(DataError, match="needs data_dir"):
        load(DataConfig(), "train")
    with pytest.raises(DataError, match="no folder annotations"):
        load(config(tmp_path), "train")
    (tmp_path / "annotations").mkdir()
    with pytest.raises(DataError, match="no captions_train or captions_val"):
        load(config(tmp_path), "train")
    make(tmp_path, "val2017")
    with pytest.raises(DataError, match=r"captions_train2017\.json is missing\. Unpack"):
        load(config(tmp_path), "train")
    assert len(load(config(tmp_path), "validation")) == 3  # which needs no training images


def test_missing_photos_are_counted_and_named(tmp_path):
    make(tmp_path)
    (tmp_path / "train2017" / "000000000001.jpg").unlink()
    with pytest.raises(DataError) as error:
        load(config(tmp_path), "train")
    assert "of 3 images" in str(error.value)
    assert "1 (000000000001.jpg). Unpack COCO's train2017.zip" in str(error.value)
    assert len(load(config(tmp_path, on_bad_image="skip"), "train")) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=7), r"does not list: 1 \(7\)"),
        (lambda c: c["annotations"][0].pop("caption"), "KeyError: 'caption'"),
        (lambda c: c["annotations"][0].update(caption=None), "not in COCO's caption format"),
        (lambda c: c.pop("images"), "KeyError: 'images'"),
        (lambda c: c["images"].append(c["images"][0]), "same id"),
        (lambda c: c["images"][0].update(file_name="../x.jpg"), "leads out of the image folder"),
        (lambda c: c["images"][0].update(file_name="/x.jpg"), "leads out of the image folder"),
        (lambda c: c["images"][0].update(file_name=3), "not in COCO's caption format"),
        (lambda c: c["annotations"][0].update(caption=" "), r"empty caption: 1 \(98\)"),
        (
            lambda c: c["annotations"].clear(),
            r"without a caption: 3 \(100, 99, 98\)",
        ),
    ],
)
def test_annotations_that_are_wrong(tmp_path, change, message):
    content = make(tmp_path)
    change(content)
    write(tmp_path, "train2017", content)
    with pytest.raises(DataError, match=message):
        load(config(tmp_path), "train")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"images": 3, "annotations": []}'])
def test_files_that_are_no_annotations(tmp_path, content):
    make(tmp_path)
    write(tmp_path, "train2017", content)
    with pytest.raises(DataError, match=r"captions_train2017\.json"):
        load(config(tmp_path), "train")


@pytest.mark.acceptance
@pytest.mark.parametrize(("split", "part"), [("train", "train2017"), ("validation", "val2017")])
def test_real_photos(split, part):
    if not SHARED.exists():
        pytest.skip("../shared/data/coco-mini is not there")
    dataset = load(config(SHARED), split)
    content = json.loads((SHARED / "annotations" / f"captions_{part}.json").read_text())
    assert len(dataset) == len(content["images"]) == {"train2017": 37, "val2017": 85}[part]
    expected: dict[str, list[str]] = {}
    for annotation in content["annotations"]:
        expected.setdefault(str(annotation["image_id"]), []).append(annotation["caption"].strip())
    sizes = {str(image["id"]): (image["width"], image["height"]) for image in content["images"]}
    for example in dataset:
        assert list(example.captions) == expected[example.image_id]
        assert example.image.size == sizes[example.image_id]
        assert example.image.mode == "RGB"
