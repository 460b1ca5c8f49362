"""Captioning into bad places: other encodings, odd names, full and read-only disks, two runs."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import draw, spoken
from outputs import FORMATS, captions_in, expected_of, place_of

from captionkit.bulk import caption_files
from captionkit.errors import ConfigError, DataError, OutputError


@pytest.mark.parametrize("existing", ["append", "prepend", "overwrite"])
def test_captions_in_another_encoding_are_never_destroyed(photos, captioner, existing):
    foreign = "ein Kätzchen".encode("latin-1")
    (photos / "a.txt").write_bytes(foreign)
    (photos / "b.txt").write_bytes("Windows\r\n".encode("utf-16"))
    result = caption_files(photos, captioner, format="txt", existing=existing)
    assert (photos / "a.txt").read_bytes() == foreign
    assert "a.txt: it is not UTF-8 text" in result.failed_file.read_text()
    own = spoken(photos / "b.png")
    expected = {"append": f"Windows, {own}", "prepend": f"{own}, Windows", "overwrite": own}
    assert (photos / "b.txt").read_bytes().decode("utf-8") == expected[existing] + "\n"
    assert result.captioned == 4


def test_names_with_anything_in_them(tmp_path, captioner, monkeypatch):
    folder = tmp_path / "photos"
    names = ["new\nline.png", "😀.png", "n" * 251 + ".png", '"=quo,ted.png', "=1+1.png", "-x.png"]
    names += ["<b>.png", os.fsdecode(b"latin-\xe9.png"), " .png"]
    for number, name in enumerate(names):
        draw(folder / name, number)
    for kind in ("txt", "metadata", "jsonl"):
        settings, _ = place_of(folder, kind)
        assert caption_files(folder, captioner, **settings).captioned == len(names)
        assert captions_in(folder, kind) == expected_of(folder)
        assert caption_files(folder, captioner, **settings).done == len(names)
    for kind in ("csv", "parquet"):  # which hold text, and no bytes that are none
        settings, _ = place_of(folder, kind)
        result = caption_files(folder, captioner, **settings)
        assert (result.captioned, result.failed) == (len(names) - 1, 1)
        found, expected = captions_in(folder, kind), expected_of(folder)
        assert found == {name: expected[name] for name in found}
        assert len(found) == len(names) - 1
    monkeypatch.chdir(folder)
    result = caption_files(sorted(names)[:4], captioner, output="here.csv")
    with open("here.csv", newline="") as file:
        cells = [row["image"] for row in csv.DictReader(file)]
    assert not any(cell[0] in "=+-@" for cell in cells)
    assert {os.path.normpath(cell) for cell in cells} == set(sorted(names)[:4])
    assert caption_files(sorted(names)[:4], captioner, output="here.csv").done == 4


def test_two_runs_on_one_folder(photos, captioner):
    """The second is refused while the first lives, and not after it was killed."""
    code = (
        "import sys, time, pathlib\n"
        "from captionkit.bulk.config import BulkConfig\n"
        "from captionkit.bulk.place import Place\n"
        "with Place.of(BulkConfig(format='txt'), [sys.argv[1]]).locked():\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(photos)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(OutputError, match="Another run is captioning into"):
            caption_files(photos, captioner, format="txt")
        assert caption_files(photos, captioner, format="txt", dry_run=True).captioned == 5
    finally:
        other.kill()
        other.communicate()
    assert caption_files(photos, captioner, format="txt").captioned == 5


def said_of(*arguments, **settings):
    try:
        caption_files(*arguments, **settings)
    except OutputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_stops_and_goes_on_when_there_is_room(photos, captioner, kind, monkeypatch):
    """Every write of the run in turn finds the disk full."""
    settings, _ = place_of(photos, kind)
    fsync, count = os.fsync, 0

    def full(handle):
        nonlocal count
        count += 1
        if count == fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    expected, stops = expected_of(photos), 0
    for fails in range(1, 40):
        count = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            said = said_of(photos, captioner, batch_size=2, **settings)
        if count < fails:
            break  # there is no further write
        assert not said or "No space left on device" in said
        assert not said or "the same command goes on" in said
        stops += bool(said)
        caption_files(photos, captioner, batch_size=2, **settings)
        assert captions_in(photos, kind) == expected
        for path in [
            *photos.rglob("*.txt"),
            photos / "metadata.jsonl",
            *photos.parent.glob("out.*"),
        ]:
            path.unlink(missing_ok=True)
        for folder in (photos, photos.parent):
            shutil.rmtree(folder / ".captionkit", ignore_errors=True)
    assert stops >= 5


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_small_disk_that_is_really_full(photos, captioner, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        for number in range(115):
            draw(photos / f"{number}.png", number)
        (disk / "filling").write_bytes(bytes(8_000))
        output = str(disk / "x.jsonl")
        with pytest.raises(OutputError, match="No space left on device"):
            caption_files(photos, captioner, output=output, batch_size=2)
        kept = len((disk / ".captionkit/x.jsonl/journal.jsonl").read_text().splitlines()) - 1
        assert 0 < kept < 120
        (disk / "filling").unlink()
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        result = caption_files(photos, captioner, output=output, batch_size=2)
        assert result.done + result.captioned == 120
        assert result.done >= kept - 2
        rows = [json.loads(line) for line in (disk / "x.jsonl").read_text().splitlines()]
        assert {row["image"]: row["caption"] for row in rows} == {
            str(photos / name): text for name, text in expected_of(photos).items()
        }
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_folders_that_cannot_be_written(photos, captioner, monkeypatch):
    """As root permissions do not count, so the system's answer is simulated."""
    opened = os.open

    def refuse(path, flags, *rest, **more):
        if "inner" in str(path) and flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    result = caption_files(photos, captioner, format="txt")
    assert (result.captioned, result.failed) == (3, 2)
    assert "Read-only file system" in result.failed_file.read_text()
    monkeypatch.undo()
    assert caption_files(photos, captioner, format="txt", retry_failed=True).captioned == 2
    assert captions_in(photos, "txt") == expected_of(photos)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs a folder of the system's")
def test_an_output_where_nothing_can_be_written(photos, captioner):
    with pytest.raises(OutputError, match=r"Cannot write to /proc/self/fd: .*--output"):
        caption_files(photos, captioner, output="/proc/self/fd/x.jsonl")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Where do the captions go"),
        ({"output": "x.doc"}, "ends in none of"),
        ({"output": "x.csv", "format": "jsonl"}, "does not end as"),
        ({"format": "csv"}, "needs output"),
        ({"format": "text", "output": "x"}, "goes to standard output"),
        ({"format": "txt", "token_probabilities": True}, "no place for token_probabilities"),
        ({"format": "metadata", "num_beams": 2, "num_return_sequences": 2}, "one caption an image"),
        ({"format": "txt", "outptu": "x"}, "did you mean 'output'"),
        ({"format": "txt", "existing": "replace"}, "it must be"),
        ({"format": "txt", "batch_size": 0}, "at least 1"),
        ({"format": "jsonl", "existing": "skip"}, "are about files"),
        ({"format": "metadata", "output": "other.jsonl"}, "no other name"),
    ],
)
def test_settings_that_do_not_fit(photos, captioner, settings, words):
    with pytest.raises(ConfigError, match=words):
        caption_files(photos, captioner, **settings)


def test_formats_that_an_image_does_not_fit_in(photos, captioner, tmp_path):
    with pytest.raises(ConfigError, match="Caption one folder"):
        caption_files([photos / "a.png"], captioner, format="metadata")
    draw(tmp_path / "else.png", 5)
    settings = {"format": "metadata", "output": str(photos)}
    result = caption_files([photos, tmp_path / "else.png"], captioner, **settings)
    assert (result.captioned, result.failed) == (5, 1)
    assert "lies outside of" in result.failed_file.read_text()
    shutil.make_archive(tmp_path / "s", "tar", photos)
    result = caption_files(tmp_path / "s.tar", captioner, format="txt")
    assert result.captioned == 0
    assert "--output names a folder" in result.failed_file.read_text()
    shards = {"format": "txt", "output": str(tmp_path / "texts")}
    assert caption_files(tmp_path / "s.tar", captioner, **shards).captioned == 5
    text = (tmp_path / "texts/s/inner/a.txt").read_text()
    assert text.strip() == spoken(photos / "inner/a.png")
    (photos / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(OutputError, match=r"has a metadata\.csv"):
        caption_files(photos, captioner, format="metadata")


@pytest.mark.parametrize(
    "content", [b"not json\n", b'{"prompt": "x"}\n', b'{"image": "a", "caption": ["x"]}\n']
)
def test_an_output_that_is_something_else_is_not_touched(photos, captioner, tmp_path, content):
    output = tmp_path / "x.jsonl"
    output.write_bytes(content)
    with pytest.raises(DataError, match=r"[Cc]hoose another output"):
        caption_files(photos, captioner, output=str(output))
    assert output.read_bytes() == content
