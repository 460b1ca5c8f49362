import json
import multiprocessing
import operator
import shutil
import zipfile
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captionkit.data import load_dataset, load_splits
from captionkit.data.coco import is_coco, load
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data" / "coco-mini"


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


def test_changed_annotations_are_read_anew(tmp_path):
    content = make(tmp_path)
    assert load(config(tmp_path), "train").captions_of(0)[0] == "train2017 0 0"
    content["annotations"][2]["caption"] = "changed"
    write(tmp_path, "train2017", content)
    assert "changed" in load(config(tmp_path), "train").captions_of(0)


def test_it_is_small_to_hand_to_another_process(tmp_path):
    make(tmp_path, count=50)
    train = load(config(tmp_path), "train")
    assert len(ForkingPickler.dumps(train)) < 4000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(operator.getitem, (train, 7)) == train[7]


def test_captions_are_changed_and_images_stay(tmp_path):
    make(tmp_path)
    train = load(config(tmp_path), "train")
    lower = train.select([2, 0]).map_captions(str.upper)
    assert lower.captions_of(0) == ("TRAIN2017 2 0", "TRAIN2017 2 1")
    assert [(e.image_id, e.source) for e in lower] == [
        (train[i].image_id, train[i].source) for i in (2, 0)
    ]
    with pytest.raises(DataError, match="empty caption"):
        train.map_captions(lambda caption: caption.removeprefix("train2017 0 0"))


def test_the_year(tmp_path):
    make(tmp_path)
    make(tmp_path, "train2014")
    with pytest.raises(DataError, match="COCO 2014 and 2017: choose one with dataset_config"):
        load(config(tmp_path), "train")
    chosen = load(config(tmp_path, dataset_config="2014"), "train")
    assert chosen.captions_of(0)[0] == "train2014 0 0"
    assert load(config(tmp_path, dataset_config="2014"), "validation") is None
    with pytest.raises(ConfigError, match=r"2015.*2014, 2017, karpathy"):
        load(config(tmp_path, dataset_config="2015"), "train")


def test_folders_that_are_not_coco(tmp_path):
    with pytest.raises(DataError, match=r"needs data_dir.*captionkit download coco"):
        load(DataConfig(), "train")
    with pytest.raises(DataError, match="nowhere does not exist"):
        load(config(tmp_path / "nowhere"), "train")
    with pytest.raises(DataError, match=r"holds no captions of COCO. Expected annotations/capt"):
        load(config(tmp_path), "train")
    assert load(config(tmp_path), "test") is None
    make(tmp_path, "val2017")
    with pytest.raises(DataError, match=r"captions_train2017\.json is neither in .*download coco"):
        load(config(tmp_path), "train")
    assert len(load(config(tmp_path), "validation")) == 3  # which needs no training images


def test_addresses_of_images_that_are_not_there(tmp_path):
    content = make(tmp_path, count=4)
    shutil.rmtree(tmp_path / "train2017")
    addresses = [
        {"coco_url": "http://a/1.jpg", "flickr_url": "http://b/1.jpg"},
        {"coco_url": "", "flickr_url": "https://b/2.jpg"},
        {"coco_url": "/etc/passwd", "flickr_url": "http://b/3.jpg"},
        {"coco_url": "file:///etc/passwd"},
    ]
    for image, more in zip(content["images"], addresses, strict=True):
        image |= more
    write(tmp_path, "train2017", content)
    with pytest.raises(DataError, match="be read from the web with allow_urls"):
        load(config(tmp_path), "train")
    with pytest.raises(DataError, match=r"1 \(train2017/000000000003.jpg\). They have no URL"):
        load(config(tmp_path, allow_urls=True), "train")
    content["images"].pop()
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 97]
    write(tmp_path, "train2017", content)
    found = load(config(tmp_path, allow_urls=True), "train")
    assert [str(e.source) for e in found] == ["http://a/1.jpg", "https://b/2.jpg", "http://b/3.jpg"]


def test_no_images_at_all(tmp_path):
    make(tmp_path)
    write(tmp_path, "train2017", {"images": [], "annotations": []})
    with pytest.raises(DataError, match="coco train2017 is empty"):
        load(config(tmp_path), "train")


# ---- in zip files


def zipped(root: Path, name: str, *folders: str) -> None:
    """Move folders into a zip file, as COCO hands them out."""
    with zipfile.ZipFile(root / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in folders:
            for file in sorted((root / folder).iterdir()):
                archive.write(file, f"{folder}/{file.name}")
            shutil.rmtree(root / folder)


def test_zip_files_are_read_as_they_come(tmp_path):
    make(tmp_path / "folders")
    make(tmp_path / "folders", "val2017", 2)
    shutil.copytree(tmp_path / "folders", tmp_path / "zips")
    zipped(tmp_path / "zips", "annotations_trainval2017.zip", "annotations")
    for part in ("train2017", "val2017"):
        zipped(tmp_path / "zips", f"{part}.zip", part)
    assert sorted(p.suffix for p in (tmp_path / "zips").iterdir()) == [".zip"] * 3
    assert is_coco(tmp_path / "zips")
    for split in ("train", "validation"):
        unpacked = load(config(tmp_path / "folders"), split)
        packed = load(config(tmp_path / "zips"), split)
        assert [(e.image_id, e.captions) for e in packed] == [
            (e.image_id, e.captions) for e in unpacked
        ]
        for a, b in zip(packed, unpacked, strict=True):
            np.testing.assert_array_equal(np.asarray(a.image), np.asarray(b.image))
    assert str(packed[1].source) == f"val2017/000000000001.jpg in {tmp_path / 'zips/val2017.zip'}"


def test_a_damaged_zip_of_annotations_is_named(tmp_path):
    make(tmp_path)
    zipped(tmp_path, "annotations_trainval2017.zip", "annotations")
    file = tmp_path / "annotations_trainval2017.zip"
    content = bytearray(file.read_bytes())
    file.write_bytes(content[:-30])
    with pytest.raises(DataError, match=r"trainval2017\.zip cannot be read .*captionkit download"):
        load(config(tmp_path), "train")
    content[60:90] = bytes(30)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"captions_train2017\.json in .*zip cannot be read"):
        load(config(tmp_path), "train")


# ---- test images, which have no captions


def test_test_images_come_from_their_list(tmp_path):
    content = make(tmp_path, "test2017")
    (tmp_path / "annotations" / "captions_test2017.json").unlink()
    del content["annotations"]
    (tmp_path / "annotations" / "image_info_test2017.json").write_text(json.dumps(content))
    test = load(config(tmp_path), "test")
    assert test.image_ids == ["100", "99", "98"]
    assert not test.has_captions
    assert test[0].captions == ()
    assert test[0].image.size == (4, 3)
    assert test.only_first_caption().caption_counts().tolist() == [0, 0, 0]
    assert not test.select([1]).has_captions


@pytest.mark.parametrize("packed", [False, True])
def test_test_images_are_found_without_a_list(tmp_path, packed):
    (tmp_path / "test2014").mkdir()
    for name in ("COCO_test2014_000000000007.jpg", "COCO_test2014_000000000100.jpg", "x.txt"):
        Image.new("RGB", (4, 3)).save(tmp_path / "test2014" / name, "JPEG")
    if packed:
        zipped(tmp_path, "test2014.zip", "test2014")
    test = load(config(tmp_path), "test")
    assert test.image_ids == ["7", "100"]
    assert test[1].image.size == (4, 3)


def test_what_has_no_captions_is_not_trained_on(tmp_path):
    (tmp_path / "test2017").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "test2017" / "000000000001.jpg")
    settings = {"dataset": "coco", "data_dir": str(tmp_path)}
    with pytest.raises(DataError, match="coco test2017 has no captions, to train on"):
        load_splits(DataConfig(**settings, split="test"), seed=0)
    assert len(load_dataset("coco", "test", data_dir=str(tmp_path), captions="first")) == 1


# ---- annotations that are wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=7), r"does not list: 1 \(7\)"),
        (lambda c: c["annotations"][0].pop("caption"), "KeyError: 'caption'"),
        (lambda c: c["annotations"][0].update(caption=None), "not in COCO's format"),
        (lambda c: c.pop("images"), "KeyError: 'images'"),
        (lambda c: c["images"].append(c["images"][0]), r"same id: 1 \(100\)"),
        (lambda c: c["images"][0].update(id=None), "not in COCO's format .*an id should be"),
        (lambda c: c["annotations"][0].update(image_id=1.5), "not in COCO's format"),
        (lambda c: c["annotations"][0].update(caption="\ud800"), "not valid Unicode"),
        (lambda c: c["images"][0].update(file_name="../x.jpg"), "leads out of the image folder"),
        (lambda c: c["images"][0].update(file_name="/x.jpg"), "leads out of the image folder"),
        (lambda c: c["images"][0].update(file_name=3), "not in COCO's format"),
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
