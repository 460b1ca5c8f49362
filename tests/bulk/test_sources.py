"""What a user may name, against brute-force listings and the libraries that wrote the files."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import NAMES, draw

from captionkit.bulk.item import ArchivePart
from captionkit.bulk.sources import check_sources, find_images
from captionkit.errors import DataError


def wheres(*sources, **settings):
    return [item.where for item in find_images([str(s) for s in sources], **settings)]


def test_a_folder_is_searched_in_the_order_of_names(photos):
    draw(photos / "b" / "x.JPG", 7)
    draw(photos / ".hidden" / "x.png", 8)
    (photos / "._a.png").write_bytes(b"left by a Mac")
    (photos / "notes.md").write_text("no image")
    (photos / "folder.png").mkdir()
    draw(photos / "folder.png" / "y.png", 9)
    expected = sorted(
        path
        for path in photos.rglob("*")
        if path.is_file()
        and path.suffix.lower() in (".png", ".jpg")
        and not any(part.startswith(".") for part in path.relative_to(photos).parts)
    )
    assert wheres(photos) == [str(path) for path in expected]


def test_links_may_form_loops_and_lead_elsewhere(photos, tmp_path):
    (photos / "loop").symlink_to(photos)
    (photos / "up").symlink_to(tmp_path)
    (photos / "inner" / "again").symlink_to(photos / "inner" / "deep")
    (photos / "self").symlink_to("self")
    elsewhere = tmp_path / "elsewhere"
    draw(elsewhere / "z.png", 1)
    (elsewhere / "round").symlink_to(elsewhere)
    (photos / "linked").symlink_to(elsewhere)
    (photos / "linked twice").symlink_to(elsewhere)
    own = sorted(photos / name for name in NAMES)
    found = wheres(photos)
    assert sorted(found) == sorted([*map(str, own), str(photos / "linked" / "z.png")])
    assert sorted(wheres(f"{photos}/**/*.png")) == sorted(found)


def test_a_link_that_leads_nowhere_is_listed_to_fail_by_name(photos):
    (photos / "gone.png").symlink_to("nothing")
    assert str(photos / "gone.png") in wheres(photos)


def test_globs(photos):
    (photos / "a.txt").write_text("a caption, no list")
    assert wheres(photos / "*.png") == [str(photos / n) for n in ("a.png", "b.png", "c d.png")]
    assert wheres(photos / "[ab].*") == [str(photos / n) for n in ("a.png", "b.png")]
    assert wheres(photos / "**" / "a.png") == [str(photos / n) for n in ("a.png", "inner/a.png")]
    assert wheres(photos / "**" / "deep" / "*") == [str(photos / "inner/deep/e.png")]
    # what a shell makes of photos/*
    everything = sorted(photos.iterdir())
    assert sorted(wheres(*everything)) == sorted(str(photos / name) for name in NAMES)
    with pytest.raises(DataError, match="Nothing that can be captioned matches"):
        wheres(photos / "*.gif")


def test_a_file_whose_name_looks_like_a_glob_is_itself(photos):
    draw(photos / "x[1].png", 1)
    assert wheres(photos / "x[1].png") == [str(photos / "x[1].png")]


def test_each_image_once_however_often_it_is_named(photos):
    found = wheres(photos / "inner", photos, photos / "a.png", f"{photos}/inner/../b.png")
    assert sorted(found) == sorted(str(photos / name) for name in NAMES)


def test_lists_have_paths_relative_to_themselves_or_to_here(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos / "inner")
    (photos / "mine.txt").write_bytes(
        b"\xef\xbb\xbfa.png\r\n\r\n"
        + os.fsencode(photos / "b.png")
        + b"\ndeep/e.png\nhttps://example.org/x/y.jpg?size=2\nname-\xff.png\n"
    )
    items = list(find_images([str(photos / "mine.txt")]))
    assert [item.where for item in items] == [
        str(photos / "a.png"),
        str(photos / "b.png"),
        str(photos / "inner/deep/e.png"),
        "https://example.org/x/y.jpg?size=2",
        str(photos) + "/name-\udcff.png",
    ]
    assert [item.name for item in items][2:4] == ["inner/deep/e.png", "example.org/x/y.jpg"]


def test_an_address_has_one_name_wherever_it_is_said(tmp_path):
    address = "https://example.org/x/y.jpg#v1.5/b"
    (tmp_path / "list.txt").write_text(address)
    (listed,) = find_images([str(tmp_path / "list.txt")])
    (given,) = find_images([address])
    assert given == listed
    assert given.name == "example.org/x/y.jpg"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tables_have_a_column_with_paths(photos, kind):
    rows = [{"id": i, "file_name": name} for i, name in enumerate((*NAMES, NAMES[0]))]
    file = photos / f"list.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        file.write_text("id,file_name\n" + "".join(f"{r['id']},{r['file_name']}\n" for r in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    expected = [str(photos / name) for name in NAMES]
    assert wheres(file) == wheres(file, image_column="file_name") == expected
    with pytest.raises(DataError, match="no column 'nam'"):
        wheres(file, image_column="nam")


def test_rows_without_a_path_are_named_and_do_not_stop_the_others(photos):
    rows = ['{"image": "a.png"}', '{"image": 7}', '{"image": null}', '{"image": "b.png"}']
    (photos / "rows.jsonl").write_text("\n".join(rows))
    items = list(find_images([str(photos / "rows.jsonl")]))
    assert [item.problem is None for item in items] == [True, False, False, True]
    assert "found 7" in items[1].problem
    assert items[1].where.endswith("rows.jsonl, line 2")


@pytest.mark.parametrize("form", ["struct", "bytes"])
def test_parquet_may_hold_the_images_themselves(photos, form):
    contents = [(photos / name).read_bytes() for name in NAMES] + [None]
    values = contents if form == "bytes" else [{"bytes": c, "path": "x"} for c in contents]
    file = photos / "set.parquet"
    pq.write_table(pa.table({"image": values, "text": list("abcdef")}), file)
    items = list(find_images([str(file)]))
    assert [item.source for item in items[:-1]] == contents[:-1]
    assert "holds no image" in items[-1].problem
    counted = [item.where for item in find_images([str(file)], contents=False)]
    assert counted == [item.where for item in items] == [f"{file}::{i}" for i in range(6)]


def test_tar_shards_are_read_in_place(photos):
    shard = photos / "shard-000.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(photos, ".", filter=lambda m: None if m.name.endswith(".tar") else m)
        archive.add(photos / "a.png", "very/" + "long/" * 40 + "é😀.png")
        caption = tarfile.TarInfo("a.txt")
        archive.addfile(caption, io.BytesIO())
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    expected = {}
    with tarfile.open(shard) as archive:
        for member in archive:
            if member.isreg() and member.name.endswith(".png"):
                name = member.name.removeprefix("./")
                expected[f"{shard}::{name}"] = archive.extractfile(member).read()
    items = list(find_images([str(shard)]))
    assert {item.where: item.source.read_bytes() for item in items} == expected
    assert len(items) == len(NAMES) + 1
    assert all(item.file is None for item in items)


def test_what_a_tar_cannot_be_trusted_with_is_named(photos):
    shard = photos / "s.tar"
    content = (photos / "a.png").read_bytes()
    with tarfile.open(shard, "w") as archive:
        for name in ("../../up.png", "/abs.png", "good.png", "last.png"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    problems = [item.problem for item in find_images([str(shard)])]
    assert problems == ["its name leads out of the archive"] * 2 + [None, None]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: 512 * 3 + 100])  # inside the third header
    items = list(find_images([str(shard)]))
    assert items[-1].where == str(shard)
    assert "damaged" in items[-1].problem
    shard.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="is not a tar file"):
        wheres(shard)


def test_a_part_of_a_file_that_is_cut_off_is_short(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    assert ArchivePart(str(tmp_path / "x"), 4, 3).read_bytes() == b"456"
    assert ArchivePart(str(tmp_path / "x"), 8, 5).read_bytes() == b"89"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.tar.gz", b"", "uncompress it first"),
        ("x.parquet", b"PAR1 not", "not a Parquet file"),
        ("x.jsonl", b"{", "line 1: not valid JSON"),
        ("x.txt", b"\n\n", "There are no images"),
    ],
)
def test_a_file_that_is_not_what_its_ending_says(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        wheres(tmp_path / name)


def test_missing_and_empty_sources(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*none\.png"):
        check_sources([str(tmp_path / "none.png")])
    with pytest.raises(DataError, match="There are no images"):
        wheres(tmp_path)
    (tmp_path / "000.tar").touch()
    with pytest.raises(DataError, match=r"It has tar files: name them, .*/\*\.tar"):
        wheres(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(photos, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "inner":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    items = list(find_images([str(photos)]))
    assert [item.where for item in items if item.problem] == [str(photos / "inner")]
    assert "Permission denied" in items[-1].problem
    assert len(items) == 4


def test_deep_folders_need_no_recursion(tmp_path):
    folder = tmp_path
    there = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):  # deeper than Python's calls, within the length of a path
        os.mkdir("d", dir_fd=there)
        inner = os.open("d", os.O_RDONLY, dir_fd=there)
        os.close(there)
        there = inner
        folder = folder / "d"
    os.close(there)
    draw(tmp_path / "a.png", 1)
    try:
        assert wheres(tmp_path) == [str(tmp_path / "a.png")]
    finally:
        os.removedirs(folder)  # recursive removal would go as deep
