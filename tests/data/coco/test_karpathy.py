import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from captionkit.data import load_dataset
from captionkit.data.coco import is_coco, load
from captionkit.errors import DataError
from captionkit.recipe import DataConfig

# (id, folder, split), in the proportions of nothing in particular
IMAGES = [(9, "train2014", "train"), (42, "val2014", "restval"), (74, "val2014", "val"),
          (133, "val2014", "test"), (25, "train2014", "train")]  # fmt: skip


def name_of(image_id: int, folder: str) -> str:
    return f"COCO_{folder}_{image_id:012d}.jpg"


def content() -> dict:
    return {
        "dataset": "coco",
        "images": [
            {
                "filepath": folder, "sentids": [1, 2], "filename": name_of(image_id, folder),
                "imgid": number, "split": split, "cocoid": image_id,
                "sentences": [
                    {"tokens": ["x"], "raw": f" {image_id} {k}. ", "imgid": number, "sentid": k}
                    for k in (0, 1)
                ],
            }
            for number, (image_id, folder, split) in enumerate(IMAGES)
        ],
    }  # fmt: skip


def make(root: Path, changed: dict | None = None) -> DataConfig:
    (root / "dataset_coco.json").write_text(json.dumps(changed or content()))
    return DataConfig(data_dir=str(root))


def photos(root: Path) -> None:
    for image_id, folder, _ in IMAGES:
        (root / folder).mkdir(exist_ok=True)
        Image.new("RGB", (image_id, 3)).save(root / folder / name_of(image_id, folder))


def test_the_splits(tmp_path):
    config = make(tmp_path)
    photos(tmp_path)
    assert is_coco(tmp_path)
    expected = {"train": ["9", "42", "25"], "validation": ["74"], "val": ["74"], "test": ["133"],
                "restval": ["42"]}  # fmt: skip
    for split, ids in expected.items():
        dataset = load(config, split)
        assert dataset.image_ids == ids
        for example in dataset:
            assert example.captions == (f"{example.image_id} 0.", f"{example.image_id} 1.")
            assert example.image.size == (int(example.image_id), 3)
    assert load(config, "other") is None
    assert load_dataset(data_dir=str(tmp_path)).image_ids == expected["train"]  # it is guessed
    assert load_dataset("coco", "validation", data_dir=str(tmp_path)).image_ids == ["74"]


def test_images_may_be_those_of_2017(tmp_path):
    config = make(tmp_path)
    (tmp_path / "train2017").mkdir()
    with zipfile.ZipFile(tmp_path / "val2017.zip", "w") as archive:
        for image_id, *_ in IMAGES:
            file = tmp_path / "train2017" / f"{image_id:012d}.jpg"
            Image.new("RGB", (image_id, 3)).save(file)
            if image_id in (42, 133):
                archive.write(file, f"val2017/{file.name}")
                file.unlink()
    for split in ("train", "validation", "test"):
        assert all(e.image.size == (int(e.image_id), 3) for e in load(config, split))


def test_out_of_the_zip_that_karpathy_offers(tmp_path):
    with zipfile.ZipFile(tmp_path / "caption_datasets.zip", "w") as archive:
        archive.writestr("dataset_flickr8k.json", "{}")
        archive.writestr("dataset_coco.json", json.dumps(content()))
    photos(tmp_path)
    assert load(DataConfig(data_dir=str(tmp_path)), "test").image_ids == ["133"]


def test_official_captions_go_before_unless_asked(tmp_path):
    config = make(tmp_path)
    photos(tmp_path)
    (tmp_path / "captions_train2014.json").write_text(
        json.dumps(
            {
                "images": [{"id": 9, "file_name": name_of(9, "train2014")}],
                "annotations": [{"image_id": 9, "caption": "official"}],
            }
        )
    )
    assert load(config, "train").all_captions() == ["official"]
    asked = DataConfig(data_dir=str(tmp_path), dataset_config="karpathy")
    assert load(asked, "train").image_ids == ["9", "42", "25"]
    (tmp_path / "dataset_coco.json").unlink()
    with pytest.raises(DataError, match=r"neither dataset_coco\.json nor .*--parts karpathy"):
        load(asked, "train")


def test_urls_follow_from_the_names(tmp_path):
    make(tmp_path)
    config = DataConfig(data_dir=str(tmp_path), allow_urls=True)
    assert str(load(config, "test")[0].source) == (
        "http://images.cocodataset.org/val2014/COCO_val2014_000000000133.jpg"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["images"][0].pop("cocoid"),
            r"KeyError: 'cocoid'\): expected \"images\", each",
        ),
        (lambda c: c["images"][0].update(sentences=[{"tokens": []}]), "KeyError: 'raw'"),
        (lambda c: c["images"][0].update(filepath="../x"), "leads out of the image folder"),
        (lambda c: c["images"][0].update(filename="a/b.jpg"), "leads out of the image folder"),
        (lambda c: c["images"][1].update(cocoid=9), "the same cocoid"),
        (lambda c: c["images"][1].update(split=3), "not in COCO's format"),
        (lambda c: c["images"][1].update(sentences=[]), r"without a caption: 1 \(42\)"),
        (lambda c: c.pop("images"), "KeyError: 'images'"),
    ],
)
def test_files_that_are_wrong(tmp_path, change, message):
    changed = content()
    change(changed)
    photos(tmp_path)
    with pytest.raises(DataError, match=rf"dataset_coco\.json.*{message}"):
        load(make(tmp_path, changed), "train")
