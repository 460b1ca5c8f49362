import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captionkit.data.fetch import RemoteImage
from captionkit.data.files import caption_lines, load_csv, load_imagefolder, load_jsonl
from captionkit.data.tables import read_rows
from captionkit.errors import DataError, ImageError
from captionkit.recipe import DataConfig


def draw(path: Path, value: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (value, 0, 0)).save(path)
    return path.name


def write_jsonl(path: Path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_csv(path: Path, *rows) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def captions(dataset) -> dict[str, tuple[str, ...]]:
    return {example.image_id: example.captions for example in dataset}


# ---- imagefolder


@pytest.mark.parametrize("form", ["jsonl", "csv", "json", "tsv"])
def test_a_folder_with_metadata(tmp_path, form):
    draw(tmp_path / "b.png", 7)
    draw(tmp_path / "below" / "a.jpg")
    if form == "csv":
        write_csv(
            tmp_path / "metadata.csv",
            ("file_name", "caption"),
            ("b.png", "a box, red"),
            ("below/a.jpg", "two"),
            ("b.png", "again"),
        )
    elif form == "tsv":
        (tmp_path / "metadata.tsv").write_text(
            "file_name\ttext\nb.png\ta box, red\nbelow/a.jpg\ttwo\nb.png\tagain\n"
        )
    elif form == "json":
        rows = [
            {"file_name": "b.png", "text": ["a box, red", "again"]},
            {"file_name": "below/a.jpg", "text": "two"},
        ]
        (tmp_path / "metadata.json").write_text(json.dumps(rows))
    else:
        write_jsonl(
            tmp_path / "metadata.jsonl",
            {"file_name": "b.png", "text": "a box, red"},
            {"file_name": "below/a.jpg", "text": "two"},
            {"file_name": "./below/../b.png", "text": "again"},
        )
    dataset = load_imagefolder(DataConfig(data_dir=str(tmp_path)), "train")
    assert captions(dataset) == {"b.png": ("a box, red", "again"), "below/a.jpg": ("two",)}
    assert np.asarray(dataset[0].image)[0, 0].tolist() == [7, 0, 0]
    assert load_imagefolder(DataConfig(data_dir=str(tmp_path)), "validation") is None


def test_a_folder_with_text_files(tmp_path):
    draw(tmp_path / "b.PNG")
    draw(tmp_path / "below" / "a.jpeg")
    (tmp_path / "b.txt").write_text("one\n\n  two  \n", encoding="utf-8")
    (tmp_path / "below" / "a.txt").write_text("\ufeffthr\u00e9e", encoding="utf-8")
    # what is no image of the user's
    draw(tmp_path / "__MACOSX" / "c.jpg")
    draw(tmp_path / ".hidden" / "d.jpg")
    (tmp_path / "._b.png").write_bytes(b"resource fork")
    (tmp_path / "notes.txt").write_text("not a caption")
    dataset = load_imagefolder(DataConfig(data_dir=str(tmp_path)), "train")
    assert captions(dataset) == {"b.PNG": ("one", "two"), "below/a.jpeg": ("thr\u00e9e",)}


@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev"])
def test_subfolders_are_splits(tmp_path, name):
    for split, text in {"train": "one", name: "two", "test": "three"}.items():
        draw(tmp_path / split / "a.jpg")
        (tmp_path / split / "a.txt").write_text(text)
    config = DataConfig(data_dir=str(tmp_path))
    found = {s: load_imagefolder(config, s) for s in ("train", "validation", "test")}
    assert [d.captions_of(0) for d in found.values()] == [("one",), ("two",), ("three",)]
    assert load_imagefolder(config, "other") is None


def test_a_split_folder_without_train(tmp_path):
    draw(tmp_path / "val" / "a.jpg")
    with pytest.raises(DataError, match="has val but no train folder"):
        load_imagefolder(DataConfig(data_dir=str(tmp_path)), "train")


def folder_error(tmp_path, **settings) -> str:
    with pytest.raises(DataError) as error:
        load_imagefolder(DataConfig(data_dir=str(tmp_path), **settings), "train")
    return str(error.value)


def test_folders_that_are_wrong(tmp_path):
    assert "There are no images" in folder_error(tmp_path)
    assert "does not exist" in folder_error(tmp_path / "none")
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "b.jpg")
    assert "is not a folder" in folder_error(tmp_path / "a.jpg")
    message = folder_error(tmp_path)
    assert "2 images but no captions" in message
    assert "metadata.jsonl" in message
    assert "a.txt" in message
    (tmp_path / "b.txt").write_text("b")
    assert "without a .txt file of captions: 1 (a.jpg)" in folder_error(tmp_path)
    (tmp_path / "a.txt").write_text(" \n\n")
    assert "empty caption: 1 (a.jpg)" in folder_error(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    assert "a.txt" in folder_error(tmp_path)
    write_csv(tmp_path / "metadata.csv", ("file_name", "text"), ("a.jpg", "a"))
    write_jsonl(tmp_path / "metadata.jsonl", {"file_name": "a.jpg", "text": "a"})
    assert "metadata.jsonl and metadata.csv; keep one" in folder_error(tmp_path)
    with pytest.raises(DataError, match="needs data_dir"):
        load_imagefolder(DataConfig(), "train")


def test_images_that_the_metadata_leaves_out_are_named(tmp_path):
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "b.jpg")
    write_jsonl(tmp_path / "metadata.jsonl", {"file_name": "a.jpg", "text": "a"})
    with pytest.warns(UserWarning, match=r"not used: 1 \(b\.jpg\)"):
        dataset = load_imagefolder(DataConfig(data_dir=str(tmp_path)), "train")
    assert dataset.image_ids == ["a.jpg"]


# ---- csv and jsonl


def test_tables_of_each_split(tmp_path):
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "images" / "b.jpg")
    rows = {"image": "a.jpg", "caption": ["one", "two"]}, {"image": "images/b.jpg", "caption": "x"}
    train = write_jsonl(tmp_path / "train.jsonl", *rows)
    test = write_jsonl(tmp_path / "test.json", {"path": "images/b.jpg", "caption": "test"})
    config = DataConfig(train_file=train, test_file=test)
    assert captions(load_jsonl(config, "train")) == {
        "a.jpg": ("one", "two"),
        "images/b.jpg": ("x",),
    }
    assert captions(load_jsonl(config, "test")) == {"images/b.jpg": ("test",)}
    assert load_jsonl(config, "validation") is None

    train = write_csv(tmp_path / "train.csv", ("image_path", "caption"), ("b.jpg", "x"))
    config = DataConfig(train_file=train, data_dir=str(tmp_path / "images"))
    assert captions(load_csv(config, "train")) == {"b.jpg": ("x",)}


def test_the_columns_are_settings(tmp_path):
    draw(tmp_path / "a.jpg")
    file = write_csv(tmp_path / "t.csv", ("id", "photo", "alt"), ("1", "a.jpg", "x"))
    config = DataConfig(train_file=file, image_column="photo", caption_column="alt")
    assert captions(load_csv(config, "train")) == {"a.jpg": ("x",)}
    with pytest.raises(DataError, match=r"t\.csv.*Columns: id, photo, alt.*image_column"):
        load_csv(DataConfig(train_file=file), "train")
    with pytest.raises(DataError, match="caption_column"):
        load_csv(DataConfig(train_file=file, image_column="photo"), "train")


def test_rows_from_relative_files(tmp_path, monkeypatch):
    draw(tmp_path / "a.jpg")
    write_csv(tmp_path / "t.csv", ("image", "text"), ("a.jpg", "x"))
    monkeypatch.chdir(tmp_path)
    dataset = load_csv(DataConfig(train_file="t.csv"), "train")
    monkeypatch.chdir("/")
    assert dataset[0].image.size == (4, 3)


def table_error(tmp_path, content, name="t.jsonl", **settings) -> str:
    file = tmp_path / name
    if isinstance(content, str):
        content = content.encode()
    file.write_bytes(content)
    load = load_csv if name.endswith("csv") else load_jsonl
    with pytest.raises(DataError) as error:
        load(DataConfig(train_file=str(file), **settings), "train")
    assert "\n" not in str(error.value)
    return str(error.value)


GOOD = '{"image": "a.jpg", "caption": "x"}\n'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (GOOD + "\n" + '{"image": "a.jpg", "caption"\n', "t.jsonl, line 3: not valid JSON"),
        (GOOD + "[1]\n", "line 2: expected an object"),
        ("[1, 2]", "item 1: expected an object"),
        ('[{"image": "a.jpg"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (GOOD + '{"image": "a.jpg"}\n', "line 2: there is no 'caption'"),
        (GOOD + '{"image": null, "caption": "x"}\n', "line 2: there is no 'image'"),
        ('{"image": 3, "caption": "x"}', "line 1: expected the path of an image, found 3"),
        ('{"image": "", "caption": "x"}', "line 1: expected the path"),
        ('{"image": "a\\u0000.jpg", "caption": "x"}', "line 1: expected the path"),
        ('{"image": "a.jpg", "caption": 3}', "should be text or a list of text, found 3"),
        ('{"image": "a.jpg", "caption": ["x", null]}', "should be text or a list of text"),
        ('{"image": "a.jpg", "caption": []}', "without a caption: 1 (a.jpg)"),
        ('{"image": "a.jpg", "caption": " "}', "empty caption: 1 (a.jpg)"),
        ('{"image": "a.jpg", "caption": "\\ud800"}', "not valid Unicode"),
        ('{"image": "https://a/b.jpg", "caption": "x"}', "is a URL"),
        ('{"foto": "a.jpg", "caption": "x"}', "no image column"),
        (GOOD.encode() + b'{"image": "\xff.jpg"}', "line 2: not UTF-8 (byte 0xff)"),
        ("", "is empty"),
        ("\n\n", "is empty"),
    ],
)
def test_broken_json_lines(tmp_path, content, expected):
    draw(tmp_path / "a.jpg")
    assert expected in table_error(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("image,caption\na.jpg,a box, red\n", "line 2: 3 fields, but the header has 2"),
        ("image,caption\na.jpg,x\na.jpg\n", "line 3: 1 fields"),
        ('image,caption\na.jpg,"never closed\na.jpg,x\n', "not valid csv"),
        ('image,caption\na.jpg,"x"y\n', "line 2: not valid csv"),
        ("image;caption\na.jpg;x\n", "Columns: image;caption"),
        ("image,caption,image\na.jpg,x,y\n", "two columns have the same name"),
        ("image,caption\n", "is empty"),
        ("", "is empty"),
        (b"image,caption\na.jpg,caf\xe9\n", "line 2: not UTF-8"),
        ("image,caption\na.jpg," + "x" * 200_000, "not valid csv"),
        ("image,caption\na.jpg,\n", "empty caption: 1 (a.jpg)"),
    ],
)
def test_broken_csv(tmp_path, content, expected):
    draw(tmp_path / "a.jpg")
    assert expected in table_error(tmp_path, content, "t.csv")


def test_a_byte_order_mark_and_line_ends_of_windows(tmp_path):
    draw(tmp_path / "a.jpg")
    content = '\ufeffimage,caption\r\na.jpg,"two\r\nlines"\r\n\r\na.jpg,x\r\n'
    (tmp_path / "t.csv").write_bytes(content.encode())
    dataset = load_csv(DataConfig(train_file=str(tmp_path / "t.csv")), "train")
    assert captions(dataset) == {"a.jpg": ("two\r\nlines", "x")}
    # the line separator of Unicode does not end a line of JSON
    row = '{"image": "a.jpg", "caption": "one\u2028two"}\r\n'
    (tmp_path / "t.jsonl").write_bytes(("\ufeff" + row).encode())
    dataset = load_jsonl(DataConfig(train_file=str(tmp_path / "t.jsonl")), "train")
    assert captions(dataset) == {"a.jpg": ("one\u2028two",)}


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2),
        min_size=1,
    )
)
@settings(deadline=None, max_examples=60)
def test_csv_rows_are_those_that_were_written(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("csv") / "t.csv"
    write_csv(file, ("a", "b"), *rows)
    read = [list(row.values()) for _, row in read_rows(file)]
    assert read == rows


def test_missing_images_are_counted_and_named(tmp_path):
    draw(tmp_path / "a.jpg")
    rows = [{"image": "a.jpg", "caption": "x"}]
    rows += [{"image": f"gone/{i}.jpg", "caption": "x"} for i in range(7)]
    file = write_jsonl(tmp_path / "t.jsonl", *rows)
    with pytest.raises(DataError) as error:
        load_jsonl(DataConfig(train_file=file), "train")
    expected = "gone/0.jpg, gone/1.jpg, gone/2.jpg, gone/3.jpg, gone/4.jpg, ..."
    assert f"of 8 images these are not below {tmp_path}: 7 ({expected})" in str(error.value)
    assert "data_dir" in str(error.value)
    assert "on_bad_image" in str(error.value)
    # under the policy to skip they are for the reader to find
    dataset = load_jsonl(DataConfig(train_file=file, on_bad_image="skip"), "train")
    assert len(dataset) == 8
    with pytest.raises(ImageError, match="no such file"):
        _ = dataset[1].image
    # but where all are missing the folder must be wrong
    with pytest.raises(DataError, match="of 8 images"):
        load_jsonl(DataConfig(train_file=file, data_dir=os.path.sep, on_bad_image="skip"), "train")


def test_paths_that_leave_the_data_folder_are_refused(tmp_path):
    data, outside = tmp_path / "data", tmp_path / "outside"
    draw(outside / "a.jpg")
    draw(data / "a.jpg")
    draw(data / "..b.jpg")
    for path in ("../outside/a.jpg", str(outside / "a.jpg"), "x/../../outside/a.jpg", "..", "/"):
        message = table_error(data, json.dumps({"image": path, "caption": "x"}))
        assert "line 1" in message
        assert "outside the data folder" in message
        assert "data_dir" in message
    # inside, an absolute path and odd spellings are well
    for path in (str(data / "a.jpg"), "./a.jpg", "x/../a.jpg"):
        file = write_jsonl(data / "t.jsonl", {"image": path, "caption": "x"})
        assert load_jsonl(DataConfig(train_file=file), "train").image_ids == ["a.jpg"]
    file = write_jsonl(data / "t.jsonl", {"image": "..b.jpg", "caption": "x"})
    assert load_jsonl(DataConfig(train_file=file), "train").image_ids == ["..b.jpg"]
    # a common parent as data_dir lets both in
    rows = [{"image": str(folder / "a.jpg"), "caption": "x"} for folder in (data, outside)]
    file = write_jsonl(data / "t.jsonl", *rows)
    dataset = load_jsonl(DataConfig(train_file=file, data_dir=str(tmp_path)), "train")
    assert dataset.image_ids == ["data/a.jpg", "outside/a.jpg"]


def test_paths_that_leave_the_data_folder_may_be_allowed(tmp_path):
    data, outside = tmp_path / "data", tmp_path / "outside"
    draw(outside / "a.jpg", 9)
    draw(data / "a.jpg")
    rows = [{"image": path, "caption": path} for path in ("../outside/a.jpg", "a.jpg")]
    rows.append({"image": str(outside / "a.jpg"), "caption": "again"})
    file = write_jsonl(data / "t.jsonl", *rows)
    dataset = load_jsonl(DataConfig(train_file=file, allow_outside_paths=True), "train")
    assert captions(dataset) == {
        (outside / "a.jpg").as_posix(): ("../outside/a.jpg", "again"),
        "a.jpg": ("a.jpg",),
    }
    assert dataset[0].image.size == (4, 3)
    # what is missing there is missing
    file = write_jsonl(data / "t.jsonl", *rows, {"image": "../none.jpg", "caption": "x"})
    with pytest.raises(DataError, match=r"1 \(.*none\.jpg\)"):
        load_jsonl(DataConfig(train_file=file, allow_outside_paths=True), "train")


def test_urls_are_sources_only_where_allowed(tmp_path):
    draw(tmp_path / "a.jpg")
    url = "https://photos.example/x/b.jpg"
    rows = [{"image": path, "caption": path} for path in (url, "a.jpg", url)]
    file = write_jsonl(tmp_path / "t.jsonl", *rows)
    with pytest.raises(DataError, match=r"line 1: https://photos.*only with allow_urls"):
        load_jsonl(DataConfig(train_file=file), "train")
    dataset = load_jsonl(DataConfig(train_file=file, allow_urls=True), "train")
    assert captions(dataset) == {url: (url, url), "a.jpg": ("a.jpg",)}
    assert dataset[0].source == RemoteImage(url)
    assert dataset[1].image.size == (4, 3)


def test_a_data_folder_behind_a_link(tmp_path):
    draw(tmp_path / "real" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    row = {"image": str(tmp_path / "real" / "a.jpg"), "caption": "x"}
    file = write_jsonl(tmp_path / "link" / "t.jsonl", row)
    dataset = load_jsonl(DataConfig(train_file=file), "train")
    assert dataset.image_ids == ["a.jpg"]
    assert dataset[0].image.size == (4, 3)


def test_files_that_are_not_given_or_not_there(tmp_path):
    with pytest.raises(DataError, match="needs train_file"):
        load_csv(DataConfig(), "train")
    with pytest.raises(DataError, match=r"none\.csv: No such file"):
        load_csv(DataConfig(train_file=str(tmp_path / "none.csv")), "train")
    with pytest.raises(DataError, match=r"does not end in \.csv"):
        load_csv(DataConfig(train_file="a.jsonl"), "train")
    with pytest.raises(DataError, match="does not exist"):
        load_csv(DataConfig(train_file="a.csv", data_dir=str(tmp_path / "none")), "train")


def test_only_ends_of_lines_divide_captions():
    text = "a dog\r\n\n  a\u2028cat \x0b\rtwo\x85birds\n"
    assert caption_lines(text) == ["a dog", "a\u2028cat", "two\x85birds"]
    assert caption_lines(" \n\r\n") == []
