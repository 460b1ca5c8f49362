"""Tables of images and captions that others wrote: JSON lines, csv, COCO and Karpathy's JSON."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from fuzz.harness import fuzz
from fuzz.mutations import any_file, documents, dumped, lines
from PIL import Image

from captionkit.bulk.listings import images_in_list, images_in_table
from captionkit.data import arrow
from captionkit.data.coco.annotation_files import captions_table, images_table
from captionkit.data.coco.id_lists import read_lists
from captionkit.data.coco.karpathy import karpathy_table
from captionkit.data.coco.layout import Found
from captionkit.data.files import load_csv, load_imagefolder, load_jsonl
from captionkit.doctor.examine import examine
from captionkit.doctor.text import as_text
from captionkit.recipe import DataConfig

ROWS: list[Any] = [
    {"image": "a.png", "caption": "a dog"},
    {"image": "b.png", "captions": ["a cat", "two cats"]},
    {"file_name": "a.png", "text": "a dog", "extra": [1, {"x": None}]},
]
VALUES = ["a.png", "b.png", "./a.png", "../a.png", ["a dog"], "a cat"]
TABLE = b'image,caption\na.png,a dog\n"b.png","a cat, ""two"" cats"\n'
COCO: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [{"id": 1, "file_name": "a.png", "coco_url": "http://x/a.png"},
               {"id": 2, "file_name": "b.png", "height": 3, "width": 4}],
    "annotations": [{"id": 9, "image_id": 1, "caption": "a dog"},
                    {"id": 8, "image_id": 2, "caption": "a cat"}],
}  # fmt: skip
KARPATHY = {
    "dataset": "coco",
    "images": [{"filename": "a.png", "filepath": "val2014", "cocoid": 1, "split": "train",
                "sentences": [{"raw": "a dog", "tokens": ["a", "dog"]}]}],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "load", "inputs"),
    [
        ("t.jsonl", load_jsonl, any_file([dumped(r) for r in ROWS], (), lines(ROWS, VALUES))),
        ("t.json", load_jsonl, any_file(
            [dumped(ROWS[:2])], (), documents([ROWS[:1], ROWS[:2], ROWS], None, VALUES))),
        ("t.csv", load_csv, any_file([TABLE, b"\xef\xbb\xbf" + TABLE], [b"\na.png,x", b'"\n"'])),
        ("t.tsv", load_csv, any_file([TABLE.replace(b",", b"\t")], [b"\na.png\tx"])),
    ],
)  # fmt: skip
def test_tables(folder, name, load, inputs):
    file = folder / name
    config = DataConfig(train_file=str(file))

    def read(content: bytes) -> None:
        file.write_bytes(content)
        for item in images_in_table(str(file), None):
            assert item.where
        data = load(config, "train")
        assert data is not None
        for i in range(len(data)):
            assert isinstance(data[i].image.size, tuple)

    fuzz(name, inputs, read)


@pytest.mark.parametrize(
    ("name", "take", "inputs"),
    [
        ("captions_train2017.json", lambda f: captions_table(f, "train2017"),
         any_file([dumped(COCO)], (), documents([COCO], None, ["a.png", "b.png", "1"]))),
        ("image_info_test2017.json", lambda f: images_table(f, "test2017"),
         any_file([dumped({"images": COCO["images"]})], (), documents([COCO]))),
        ("dataset_coco.json", karpathy_table,
         any_file([dumped(KARPATHY)], (), documents([KARPATHY], None, ["val", "a.png"]))),
    ],
)  # fmt: skip
def test_coco(tmp_path, name, take, inputs):
    file = tmp_path / name

    def read(content: bytes) -> None:
        file.write_bytes(content)
        table = take(Found(file))
        arrow.check(table, name) if name != "image_info_test2017.json" else None

    fuzz(name, inputs, read)


@pytest.mark.parametrize("name", ["list.txt"])
def test_lists(tmp_path, name):
    file, coco = tmp_path / name, tmp_path / "captions.json"
    coco.write_bytes(dumped(COCO))
    table = captions_table(Found(coco), "train2017")

    def read(content: bytes) -> None:
        file.write_bytes(content)
        for item in images_in_list(str(file)):
            assert item.where
        read_lists({"train": file}, table, "captions.json")

    fuzz(name, any_file([b"1\n2\n", b"a.png\nb.png\n", b"# x\n000001\n"], [b"\n1", b"\n2"]), read)


def test_captions_beside_images(folder):
    text = any_file([b"a dog\n", b"a cat\ntwo cats\n"])

    def read(contents: tuple[bytes, bytes]) -> None:
        for name, content in zip(("a.txt", "b.txt"), contents):
            (folder / name).write_bytes(content)
        assert load_imagefolder(DataConfig(data_dir=str(folder)), "train") is not None

    fuzz("a.txt", lambda dice: (text(dice), text(dice)), read)


def test_doctor(folder):
    """It is to find what is wrong in any table, rather than to stop at it."""
    shutil.copy(folder / "a.png", folder / "c.png")
    file = folder / "metadata.jsonl"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        as_text(examine("imagefolder", data_dir=str(folder), threads=1))

    make = any_file([dumped(row) for row in ROWS], (), lines(ROWS, VALUES))
    fuzz("doctor", make, read, refuses=False)
