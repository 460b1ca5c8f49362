"""Sources are read on past what is wrong, and agree with load_dataset where nothing is."""

from __future__ import annotations

import json
import os
import warnings

import pytest
from broken_images import CASES, JPEG, PNG, SCENE, encoded

from captionkit.data import load_dataset
from captionkit.data.dataset import CaptionDataset
from captionkit.doctor import examine
from captionkit.errors import ConfigError, DataError

PICTURES = {f"{c}.png": encoded(SCENE // (i + 1), "PNG") for i, c in enumerate("abcdefgh")}


def kinds(diagnosis):
    return [finding.kind for finding in diagnosis.findings]


def items(diagnosis, kind):
    (finding,) = (finding for finding in diagnosis.findings if finding.kind == kind)
    return [(*item.names, item.detail) for item in finding.items]


def beside(folder, **captions):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, text in captions.items():
        (folder / f"{stem}.png").write_bytes(PICTURES[f"{stem}.png"])
        if text is not None:
            (folder / f"{stem}.txt").write_text(text, encoding="utf-8")
    return folder


# ---- the broken set as a dataset


def test_the_whole_broken_set_is_told_and_nothing_stops_it(broken):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnosis = examine(str(broken), near_duplicates=True)
    found = {finding.kind: {n for item in finding.items for n in item.names}
             for finding in diagnosis.findings}  # fmt: skip
    for case in CASES:
        name = "caf\\xe9.png" if isinstance(case.name, bytes) else case.name
        for kind in case.finds:
            if kind == "no_permission" and os.geteuid() == 0:
                continue
            assert any(n.endswith(name) for n in found[kind]), (case.name, kind)
    assert not diagnosis.passes()
    # a folder is not listed as an image by anyone
    assert diagnosis.splits == {"train": (len(CASES) - 1, len(CASES) - 1)}


# ---- folders


def test_a_folder_in_order(tmp_path):
    folder = beside(tmp_path / "photos", a="one", b="two", c="three\nand four")
    diagnosis = examine(str(folder))
    assert kinds(diagnosis) == []
    assert diagnosis.passes(strict=True)
    assert diagnosis.splits == {"train": (3, 4)}
    assert diagnosis.pictures["formats"] == "PNG 3"
    assert load_dataset(data_dir=str(folder), test_size=0.0).image_ids == [
        "a.png",
        "b.png",
        "c.png",
    ]


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"), ("training", "train"), ("validation", "validation"),
        ("valid", "validation"), ("val", "validation"), ("dev", "validation"), ("test", "test"),
        ("testing", "test"),
    ],
)  # fmt: skip
def test_folders_are_the_splits_that_load_dataset_sees(tmp_path, folder, split):
    beside(tmp_path / folder, a="one", b="two")
    if split != "train":
        beside(tmp_path / "train", c="three")
    assert examine(str(tmp_path)).splits[split] == (2, 2)
    assert len(load_dataset(data_dir=str(tmp_path), split=split, test_size=0.0)) == 2
    assert list(examine(str(tmp_path), split=split).splits) == [split]


def test_what_lies_in_a_folder_and_does_not_fit(tmp_path):
    folder = beside(tmp_path / "photos", a="one", b="\n \n", c=None)
    (folder / "lost.txt").write_text("nobody's")
    (folder / "README.txt").write_text("about these photos")
    (folder / "phone.heic").write_bytes(b"x")
    (folder / "deep.jpg").mkdir()
    (folder / ".hidden.png").write_bytes(b"x")
    diagnosis = examine(str(folder))
    assert kinds(diagnosis) == [
        "not_a_file", "no_caption", "empty_caption", "no_image", "other_format",
    ]  # fmt: skip
    assert items(diagnosis, "no_caption") == [("c.png", "")]
    assert items(diagnosis, "empty_caption") == [("b.png", "")]
    assert items(diagnosis, "no_image") == [
        (str(folder / "lost.txt"), "no image of this name beside it")
    ]
    assert items(diagnosis, "other_format") == [(str(folder / "phone.heic"), ".heic")]


def test_a_validation_folder_alone_is_what_the_source_refuses(tmp_path):
    beside(tmp_path / "validation", a="one")
    diagnosis = examine(str(tmp_path))
    assert kinds(diagnosis) == ["load"]
    assert "no train folder beside it" in items(diagnosis, "load")[0][-1]


def test_captions_that_are_not_utf_8(tmp_path):
    folder = beside(tmp_path / "photos", a="one", b="two")
    (folder / "a.txt").write_bytes(b"caf\xe9")
    diagnosis = examine(str(folder))
    assert kinds(diagnosis) == ["bad_encoding"]
    assert items(diagnosis, "bad_encoding")[0][0] == str(folder / "a.txt")


# ---- metadata and tables


def test_a_metadata_file_with_everything_wrong(listed):
    folder = listed(PICTURES, {"a.png": "one", "b.png": ["two", ""], "c.png": [], "gone.png": "x"})
    with open(folder / "metadata.jsonl", "ab") as file:
        file.write(b'{"file_name": "d.png", "caption": "unclosed\n')
        file.write(b'{"file_name": "d.png"}\n[1]\n')
        file.write(b'{"caption": "no path"}\n{"file_name": "../e.png", "caption": "out"}\n')
        file.write(b'{"file_name": "https://a.example/e.png", "caption": "far"}\n')
        file.write(b'{"file_name": "e.png", "caption": 7}\n')
        file.write('{"file_name": "f.png", "caption": "café"}\n'.encode("latin-1"))
    diagnosis = examine(str(folder))
    assert kinds(diagnosis) == [
        "bad_encoding", "bad_row", "outside", "url", "missing", "no_caption", "empty_caption",
        "unlisted",
    ]  # fmt: skip
    where = f"{folder / 'metadata.jsonl'}, line"
    rows = items(diagnosis, "bad_row")
    assert [name for name, _ in rows] == [f"{where} {n}" for n in (5, 6, 7, 8, 11)]
    assert "not valid JSON" in rows[0][1]
    assert items(diagnosis, "bad_encoding")[0][0] == f"{where} 12"
    assert items(diagnosis, "outside") == [(f"{where} 9", "../e.png")]
    assert items(diagnosis, "url") == [(f"{where} 10", "https://a.example/e.png")]
    assert items(diagnosis, "missing") == [("gone.png", "")]
    assert {name for name, _ in items(diagnosis, "no_caption")} == {"c.png", "d.png", "e.png"}
    assert [name for name, _ in items(diagnosis, "unlisted")] == [
        str(folder / "g.png"), str(folder / "h.png")
    ]  # fmt: skip


def test_a_csv_is_read_past_bad_rows(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.jpg").write_bytes(JPEG)
    file = tmp_path / "captions.csv"
    file.write_text('image,caption\na.png,"one, two"\na.png,three,four\nb.jpg,five\nb.jpg,"six\n')
    diagnosis = examine(str(file))
    assert kinds(diagnosis) == ["bad_row"]
    rows = items(diagnosis, "bad_row")
    assert rows[0] == (
        f"{file}, line 3",
        "3 fields, but the header has 2; captions with commas belong in quotes",
    )
    assert rows[1][0] == f"{file}, lines 5 to 5"
    assert diagnosis.splits == {"train": (2, 2)}


def test_a_table_without_the_columns_says_which_it_has(tmp_path):
    file = tmp_path / "captions.csv"
    file.write_text("picture,words\na.png,one\n")
    diagnosis = examine(str(file))
    assert kinds(diagnosis) == ["load"]
    assert "Columns: picture, words" in items(diagnosis, "load")[0][-1]
    (tmp_path / "a.png").write_bytes(PNG)
    assert kinds(examine(str(file), image_column="picture", caption_column="words")) == []


def test_train_and_validation_files(tmp_path):
    for name, content in PICTURES.items():
        (tmp_path / name).write_bytes(content)
    for split, rows in (("train", "abc"), ("val", "cd")):
        lines = [json.dumps({"image": f"{c}.png", "caption": f"a {c} here"}) for c in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    diagnosis = examine(
        train_file=str(tmp_path / "train.jsonl"), validation_file=str(tmp_path / "val.jsonl")
    )
    assert diagnosis.splits == {"train": (3, 3), "validation": (2, 2)}
    assert items(diagnosis, "leak_image") == [("train: c.png", "validation: c.png", "")]
    assert kinds(diagnosis) == ["leak_image", "shared_caption"]


def test_a_json_list_and_one_that_is_broken(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    file = tmp_path / "captions.json"
    file.write_text(json.dumps([{"image": "a.png", "caption": "one"}, 3]))
    assert items(examine(str(file)), "bad_row") == [
        (f"{file}, item 2", "expected an object, found int")
    ]
    file.write_text("[{")
    assert kinds(examine(str(file))) == ["bad_row"]


# ---- COCO


@pytest.fixture
def coco(tmp_path):
    def write(images, annotations, on_disk="abcd"):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "train2017").mkdir(exist_ok=True)
        for c in on_disk:
            (tmp_path / "train2017" / f"{c}.png").write_bytes(PICTURES[f"{c}.png"])
        content = {"images": images, "annotations": annotations}
        (tmp_path / "annotations/captions_train2017.json").write_text(json.dumps(content))
        return str(tmp_path)

    return write


def test_coco_with_everything_wrong(coco):
    images = [
        {"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"},
        {"id": 2, "file_name": "c.png"}, {"id": 3, "file_name": "gone.png"}, {"id": 4},
        {"id": 5, "file_name": "../d.png"},
    ]  # fmt: skip
    annotations = [
        {"image_id": 1, "caption": "one"}, {"image_id": 1, "caption": " One "},
        {"image_id": 3, "caption": ""}, {"image_id": 9, "caption": "lost"}, {"image_id": 1}, 7,
    ]  # fmt: skip
    diagnosis = examine(coco(images, annotations))
    assert kinds(diagnosis) == [
        "bad_row", "outside", "missing", "no_caption", "empty_caption", "no_image", "unlisted",
        "repeated_caption",
    ]  # fmt: skip
    assert len(items(diagnosis, "bad_row")) == 4
    assert items(diagnosis, "no_caption") == [("2", "")]
    assert items(diagnosis, "missing") == [("3", "")]


def test_coco_that_is_in_order_is_what_load_dataset_gives(coco):
    images = [{"id": i, "file_name": f"{c}.png"} for i, c in enumerate("abcd")]
    annotations = [{"image_id": i, "caption": f"a {i} thing"} for i in (0, 1, 2, 3, 3)]
    folder = coco(images, annotations)
    diagnosis = examine(folder)
    assert kinds(diagnosis) == ["repeated_caption"]
    assert diagnosis.splits == {"train": (4, 5)}
    assert len(load_dataset("coco", data_dir=folder, test_size=0.0)) == 4


@pytest.mark.acceptance
def test_real_coco_photos_are_in_order(shared_data):
    diagnosis = examine(str(shared_data / "coco-mini"), near_duplicates=True)
    assert kinds(diagnosis) == []
    assert diagnosis.splits == {"train": (37, 185), "validation": (85, 425)}
    assert diagnosis.pictures["formats"] == "JPEG 122"


# ---- other sources


def test_a_registered_source_is_read_as_training_reads_it():
    diagnosis = examine("critters", split="validation", near_duplicates=False)
    expected = load_dataset("critters", split="validation")
    assert diagnosis.splits["validation"][0] == len(expected)
    assert not diagnosis.of("error")
    assert "only be read as training reads it" in diagnosis.remarks[0]


def test_data_in_memory():
    pairs = [(SCENE, "one"), (SCENE.copy(), "two"), (SCENE // 2, "three"), ("gone.png", "four")]
    diagnosis = examine(pairs)
    assert kinds(diagnosis) == ["missing", "same_bytes"]  # as PNG they are the same bytes
    assert items(diagnosis, "same_bytes") == [("0", "1", "")]
    same = CaptionDataset.from_pairs(pairs, "mine")
    assert kinds(examine(same)) == kinds(diagnosis)
    assert kinds(examine([(SCENE, "")])) == ["load"]


def test_what_cannot_be_examined_at_all(tmp_path):
    with pytest.raises(DataError, match=r"There is no file or folder \./nowhere"):
        examine("./nowhere")
    with pytest.raises(DataError, match=r"There is no file or folder nothing\.csv"):
        examine("nothing.csv")
    with pytest.raises(ConfigError, match=r"no file or folder 'criters', nor a source.*'critters'"):
        examine("criters")
    with pytest.raises(DataError, match="There is no file or folder photso/"):
        examine("photso/")
    with pytest.raises(DataError, match="there are no images"):
        examine(str(tmp_path))
    with pytest.raises(ConfigError, match="Say which data to use"):
        examine()
    with pytest.raises(ConfigError, match="did you mean 'image_column'"):
        examine("critters", image_colum="x")
    with pytest.raises(ConfigError, match="threads=0"):
        examine("critters", threads=0)
    with pytest.raises(ConfigError, match="name two datasets"):
        examine(str(tmp_path), data_dir="elsewhere")


def test_the_source_has_the_last_word(tmp_path, monkeypatch):
    """What looks right here and is refused there is told in the source's own words."""
    from captionkit.data import files

    def refuse(config, split):
        raise DataError("not today")

    folder = beside(tmp_path / "photos", a="one", b="two")
    monkeypatch.setattr(files, "load_imagefolder", refuse)
    from captionkit import registry

    monkeypatch.setattr(registry, "get_dataset", lambda name: refuse)
    diagnosis = examine(str(folder), split="train")
    assert items(diagnosis, "load") == [("train", "not today")]
