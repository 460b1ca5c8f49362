"""Collections captioned into files, read back with other readers; bad input and bad disks."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from conftest import NAMES, draw, spoken
from fake_captioner import FakeCaptioner

from captionkit.bulk import caption_files
from captionkit.errors import ConfigError, DataError, ImageError, OutputError

FORMATS = ("txt", "metadata", "jsonl", "csv", "parquet")


def place_of(folder, kind):
    """The settings that send captions of a folder somewhere, and the place."""
    if kind in ("txt", "metadata"):
        path = folder / "metadata.jsonl" if kind == "metadata" else folder
        return {"format": kind}, path
    return {"output": str(folder.parent / f"out.{kind}")}, folder.parent / f"out.{kind}"


def captions_in(folder, kind):
    """{path below the folder: caption}, read without the code under test."""
    path = place_of(folder, kind)[1]
    if kind == "txt":
        found = {p.relative_to(folder): p.read_text("utf-8") for p in folder.rglob("*.txt")}
        return {str(p.with_suffix(".png")): text.removesuffix("\n") for p, text in found.items()}
    if not path.exists():
        return {}
    if kind == "parquet":
        rows = pq.read_table(path).to_pylist()
    elif kind == "csv":
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    image, caption = ("file_name", "text") if kind == "metadata" else ("image", "caption")
    assert len({row[image] for row in rows}) == len(rows), "an image has two rows"
    return {row[image].removeprefix(f"{folder.name}/"): row[caption] for row in rows}


def expected_of(folder):
    return {str(p.relative_to(folder)): spoken(p) for p in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_holds_every_caption(photos, captioner, kind):
    settings, _ = place_of(photos, kind)
    result = caption_files(photos, captioner, batch_size=2, **settings)
    assert captions_in(photos, kind) == expected_of(photos)
    assert (result.captioned, result.kept, result.done, result.failed) == (5, 0, 0, 0)
    assert result.failed_file is None
    captioner.batches.clear()
    again = caption_files(str(photos), captioner, **settings)
    assert (again.captioned, again.done, captioner.batches) == (0, 5, [])
    draw(photos / "new.png", 9)
    assert caption_files(photos, captioner, **settings).captioned == 1
    assert captions_in(photos, kind) == expected_of(photos)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("existing", ["skip", "overwrite", "append", "prepend"])
def test_captions_that_are_there(photos, captioner, kind, existing):
    settings, path = place_of(photos, kind)
    caption_files(photos, captioner, **settings)
    own = spoken(photos / "a.png")
    # as another tool, or a person, may have left them
    if kind == "txt":
        (photos / "a.txt").write_text("mine")
    elif kind == "parquet":
        rows = pq.read_table(path)
        mine = [c if i != "photos/a.png" else "mine" for i, c in zip(*map(list, (
            rows["image"].to_pylist(), rows["caption"].to_pylist())))]  # fmt: skip
        pq.write_table(rows.set_column(1, "caption", [mine]), path)
    else:
        path.write_text(path.read_text().replace(own, "mine"))
    shutil.rmtree((photos if kind in ("txt", "metadata") else photos.parent) / ".captionkit")
    result = caption_files(photos, captioner, existing=existing, **settings)
    new = {
        "skip": "mine", "overwrite": own, "append": f"mine, {own}", "prepend": f"{own}, mine",
    }[existing]  # fmt: skip
    assert captions_in(photos, kind)["a.png"] == new
    assert result.kept == (5 if existing == "skip" else 0)
    assert result.captioned == (0 if existing == "skip" else 5)
    # the same again adds nothing twice
    once = captions_in(photos, kind)
    assert caption_files(photos, captioner, existing=existing, **settings).captioned == 0
    assert captions_in(photos, kind) == once


def test_the_other_rows_and_columns_of_a_file_stay(photos, captioner):
    rows = [
        {"file_name": "a.png", "label": 3, "text": "mine"},
        {"file_name": "not/here.png", "label": 4, "text": "kept"},
        {"file_name": "b.png", "label": 5, "text": ""},
    ]
    (photos / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = caption_files(photos, captioner, format="metadata")
    found = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    assert found[:2] == rows[:2]
    assert found[2] == {**rows[2], "text": spoken(photos / "b.png")}
    assert [row["file_name"] for row in found[3:]] == list(NAMES[2:])
    assert (result.captioned, result.kept) == (4, 1)


def test_what_others_read(photos, captioner, tmp_path):
    """`datasets` reads metadata.jsonl, and so do our own sources; and the .txt, and the jsonl."""
    from datasets import load_dataset

    import captionkit

    expected = sorted(expected_of(photos).values())
    caption_files(photos, captioner, format="metadata")
    table = load_dataset("imagefolder", data_dir=str(photos), cache_dir=str(tmp_path / "hf"))
    assert sorted(table["train"]["text"]) == expected
    ours = captionkit.load_dataset("imagefolder", data_dir=str(photos), test_size=0)
    assert sorted(example.captions[0] for example in ours) == expected
    (photos / "metadata.jsonl").unlink()
    caption_files(photos, captioner, format="txt")
    ours = captionkit.load_dataset("imagefolder", data_dir=str(photos), test_size=0)
    assert sorted(example.captions[0] for example in ours) == expected
    caption_files(photos, captioner, output=str(tmp_path / "all.jsonl"))
    ours = captionkit.load_dataset("jsonl", train_file=str(tmp_path / "all.jsonl"), test_size=0)
    assert sorted(example.captions[0] for example in ours) == expected


def test_text_files_may_lie_in_a_folder_of_their_own(photos, captioner, tmp_path):
    before = sorted(photos.rglob("*"))
    caption_files(photos, captioner, format="txt", output=str(tmp_path / "captions"))
    assert sorted(photos.rglob("*")) == before
    found = {p.relative_to(tmp_path / "captions") for p in (tmp_path / "captions").rglob("*.txt")}
    assert {str(p.with_suffix(".png")) for p in found} == set(NAMES)
    assert (tmp_path / "captions/inner/a.txt").read_text().strip() == spoken(photos / "inner/a.png")


def test_rows_hold_scores_alternatives_and_probabilities(photos, captioner, tmp_path):
    for kind in ("jsonl", "parquet"):
        output = tmp_path / f"x.{kind}"
        caption_files(
            photos, captioner, output=str(output), num_return_sequences=3, num_beams=3,
            token_probabilities=True,
        )  # fmt: skip
        if kind == "jsonl":
            rows = [json.loads(line) for line in output.read_text().splitlines()]
        else:
            rows = pq.read_table(output).to_pylist()
        assert len(rows) == 5
        others = [spoken(photos / "a.png", rank=rank) for rank in (1, 2)]
        assert [other["caption"] for other in rows[0]["alternatives"]] == others
        words = [token["token"] for token in rows[0]["token_probabilities"]]
        assert " ".join(words) == rows[0]["caption"] == spoken(photos / "a.png")


def test_two_thousand_critters_with_thirty_broken(tmp_path):
    from captionkit.data.critters import attributes
    from captionkit.data.critters_draw import draw as draw_critter

    folder = tmp_path / "critters"
    folder.mkdir()
    for number, critter in enumerate(attributes(250)):
        drawn = draw_critter(critter, 16, number)
        for turn in range(8):  # quicker than drawing
            picture = drawn if turn == 0 else drawn.transpose(turn - 1)
            picture.save(folder / f"{number * 8 + turn:04}.png", compress_level=1)
    broken = [f"{i * 61 + 7:04}.png" for i in range(30)]
    for i, name in enumerate(broken):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes((b"", b"text", content[: len(content) // 2])[i % 3])
    result = caption_files(folder, FakeCaptioner(), format="txt", batch_size=32)
    assert (result.captioned, result.failed) == (1970, 30)
    assert {p.stem for p in folder.glob("*.txt")} == {
        p.stem for p in folder.glob("*.png") if p.name not in broken
    }
    listed = [json.loads(line) for line in result.failed_file.read_text().splitlines()]
    assert [row["image"] for row in listed] == broken
    assert len({row["reason"] for row in listed}) == 3
    for name in ("0000.png", "1999.png"):
        assert (folder / name).with_suffix(".txt").read_text() == spoken(folder / name) + "\n"
    assert sorted(os.listdir(folder / ".captionkit" / "txt")) == [".lock", "journal.jsonl"]


def test_failures_are_tried_again_on_request_only(photos, captioner, tmp_path):
    good = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(good[:60])
    where = {"output": str(tmp_path / "x.jsonl")}
    first = caption_files(photos, captioner, **where)
    assert (first.captioned, first.failed) == (4, 1)
    (photos / "b.png").write_bytes(good)
    assert caption_files(photos, captioner, **where).failed == 1
    last = caption_files(photos, captioner, retry_failed=True, **where)
    assert (last.captioned, last.done, last.failed, last.failed_file) == (1, 4, 0, None)
    assert captions_of(tmp_path / "x.jsonl") == expected_of(photos)
    assert not list(tmp_path.glob("*.failed.jsonl"))


def captions_of(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["image"].removeprefix("photos/"): row["caption"] for row in rows}


def test_stop_at_the_first_bad_image_keeps_what_was_done(photos, captioner, tmp_path):
    (photos / "b.png").write_bytes(b"")
    settings = {"output": str(tmp_path / "x.jsonl"), "batch_size": 1, "workers": 1}
    with pytest.raises(ImageError, match=r"b\.png: it is empty \(0 bytes\)\. The captions so far"):
        caption_files(photos, captioner, on_bad_image="stop", **settings)
    assert captions_of(tmp_path / "x.jsonl")["a.png"] == spoken(photos / "a.png")


def test_changed_settings_are_noticed(photos, tmp_path):
    class Other(FakeCaptioner):
        """Another model."""

    where = {"format": "txt"}
    caption_files(photos, FakeCaptioner(), **where)
    with pytest.raises(ConfigError, match="the model was FakeCaptioner and is Other"):
        caption_files(photos, Other(), **where)
    with pytest.raises(ConfigError, match="num_beams was 'the default' and is 4") as error:
        caption_files(photos, FakeCaptioner(), num_beams=4, **where)
    assert "existing=overwrite captions all anew" in str(error.value)
    with pytest.raises(ConfigError, match="prefix was '' and is 'x'"):
        caption_files(photos, FakeCaptioner(), prefix="x", dry_run=True, **where)
    assert caption_files(photos, FakeCaptioner(), batch_size=1, workers=1, **where).done == 5
    assert caption_files(photos, Other(), existing="skip", **where).kept == 5
    assert caption_files(photos, Other(), existing="overwrite", prefix="x", **where).captioned == 5
    assert (photos / "a.txt").read_text().startswith("x")
    result = caption_files(photos, Other(), existing="overwrite", prefix="x", **where)
    assert result.captioned == 0
    result = caption_files(photos, Other(), existing="overwrite", prefix="x", restart=True, **where)
    assert result.captioned == 5


def test_a_model_whose_weights_changed_is_another(photos, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(300_000))
    captioner = FakeCaptioner()
    captioner.checkpoint = model
    caption_files(photos, captioner, format="txt")
    captioner.checkpoint = model.rename(tmp_path / "renamed")
    assert caption_files(photos, captioner, format="txt").done == 5
    captioner.checkpoint = captioner.checkpoint.rename(model)
    (model / "model.safetensors").write_bytes(bytes(150_000) + b"1" * 150_000)
    with pytest.raises(ConfigError, match="the files of the model model have changed"):
        caption_files(photos, captioner, format="txt")


def test_captions_that_were_taken_away_are_made_again(photos, captioner):
    caption_files(photos, captioner, format="txt")
    (photos / "a.txt").unlink()
    (photos / "b.txt").write_text("")
    result = caption_files(photos, captioner, format="txt")
    assert (result.captioned, result.done) == (2, 3)
    assert captions_in(photos, "txt") == expected_of(photos)


def test_a_folder_that_is_moved_keeps_its_state(photos, captioner, tmp_path):
    caption_files(photos, captioner, format="txt")
    photos.rename(tmp_path / "moved")
    assert caption_files(tmp_path / "moved", captioner, format="txt").done == 5


def test_dry_run_says_what_would_be_done_and_does_nothing(photos, captioner):
    (photos / "b.txt").write_text("mine")
    before = sorted(photos.rglob("*"))
    result = caption_files(photos, captioner, format="txt", dry_run=True)
    assert (result.captioned, result.kept) == (4, 1)
    assert result.first == [str(photos / n) for n in ("a.png", "c d.png", "inner/a.png")]
    assert sorted(photos.rglob("*")) == before
    assert not captioner.batches


def test_doubtful_captions_are_listed_worst_first(photos, captioner, tmp_path):
    where = {"output": str(tmp_path / "x.jsonl")}
    caption_files(photos, captioner, **where)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    limit = sorted(row["score"] for row in rows)[3]
    # on a finished run nothing is captioned for it
    result = caption_files(photos, captioner, review_below=limit, **where)
    listed = [json.loads(line) for line in result.review_file.read_text().splitlines()]
    assert listed == sorted((r for r in rows if r["score"] < limit), key=lambda r: r["score"])
    assert (result.doubtful, result.captioned) == (3, 0)
    assert caption_files(photos, captioner, review_below=-9, **where).review_file is None


def test_two_images_of_one_name_do_not_share_a_caption(photos, captioner):
    draw(photos / "a.bmp", 77)
    for _ in range(2):
        result = caption_files(photos, captioner, format="txt", batch_size=1)
        assert result.failed == 1
        reason = json.loads(result.failed_file.read_text())
        assert reason["image"] == "a.png"
        assert "of the same name, but for the ending" in reason["reason"]
        assert (photos / "a.txt").read_text().strip() == spoken(photos / "a.bmp")


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


def test_names_with_anything_in_them(tmp_path, captioner):
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
    os.chdir(folder)
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
