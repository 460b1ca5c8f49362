"""captionkit caption, as a user types it, with a captioner that needs no framework."""

from __future__ import annotations

import json

import pytest
from conftest import NAMES, draw, spoken
from fake_captioner import FakeCaptioner

from captionkit.cli import main


@pytest.fixture(autouse=True)
def loaded(monkeypatch, photos):
    """Models that are loaded, while in the folder of the photos' folder."""
    loads = []

    def load(model, *settings):
        loads.append(model)
        return FakeCaptioner()

    monkeypatch.setattr("captionkit.api.load", load)
    monkeypatch.chdir(photos.parent)
    (photos.parent / "model").mkdir()
    (photos.parent / "model" / "config.json").write_text("{}")
    return loads


def said(capsys, *arguments, status=0):
    assert main(["caption", *arguments, "--model", "model"]) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured


def test_captions_are_printed_as_they_come(photos, capsys):
    (photos / "broken.jpg").write_bytes(b"")
    captured = said(capsys, "photos", "--trigger", "sks")
    expected = [f"photos/{name}: sks, {spoken(photos / name)}" for name in NAMES]
    assert captured.out.splitlines() == expected
    assert "skipped: photos/broken.jpg: it is empty (0 bytes)" in captured.err
    assert "1 of 6 images skipped" in captured.err
    captured = said(capsys, "photos/a.png", "photos/b.png", "--format", "jsonl")
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [(row["image"], row["caption"]) for row in rows] == [
        (f"photos/{name}", spoken(photos / name)) for name in ("a.png", "b.png")
    ]


def test_alternatives_are_printed_below_each_other(photos, capsys):
    arguments = ("--num-return-sequences", "2", "--num-beams", "2")
    captured = said(capsys, "photos/a.png", *arguments)
    texts = [spoken(photos / "a.png", rank=rank) for rank in (0, 1)]
    assert captured.out.splitlines() == [f"photos/a.png: {text}" for text in texts]
    captured = said(capsys, "photos/a.png", *arguments, "--format", "jsonl")
    assert json.loads(captured.out)["alternatives"][0]["caption"] == texts[1]


def test_a_name_cannot_command_the_terminal(photos, capsys):
    draw(photos / "x\x1b[2J\n.png", 3)
    out = said(capsys, "photos").out
    assert "\x1b" not in out
    assert r"photos/x\x1b[2J\n.png: " in out


def test_the_summary_of_a_run(photos, capsys, loaded):
    (photos / "broken.jpg").write_bytes(b"")
    (photos / "b.txt").write_text("mine")
    dry = said(capsys, "photos", "--format", "txt", "--dry-run").out.splitlines()
    assert dry == [
        "to caption 5   photos/a.png, photos/broken.jpg, photos/c d.png, ...",
        "kept       1   have a caption; --existing overwrite, append or prepend changes them",
        "captions   a .txt beside each image, in photos",
    ]
    assert not loaded
    captured = said(capsys, "photos", "--format", "txt", "--review-below", "-9")
    lines = captured.out.splitlines()
    assert lines[0].startswith("captioned  4   in 0:0")
    assert lines[2:] == [
        "failed     1   photos/captions.failed.jsonl; --retry-failed tries them again",
        "doubtful   0   score below -9",
        "captions   a .txt beside each image, in photos",
    ]
    assert "failed: photos/broken.jpg: it is empty (0 bytes)" in captured.err
    loaded.clear()
    lines = said(capsys, "photos", "--format", "txt").out.splitlines()
    assert lines[:2] == ["captioned  0", "done       4   captioned before; --restart forgets that"]
    assert not loaded  # nothing to do: no model is loaded
    lines = said(capsys, "photos", "--output", "x.parquet", "--review-below", "0").out.splitlines()
    assert lines[2:] == ["doubtful   5   score below 0   x.review.jsonl", "captions   x.parquet"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "Which images?"),
        (["none.jpg"], 1, "no file or folder none.jpg"),
        (["none.jpg", "--output", "x.csv"], 1, "no file or folder none.jpg"),
        (["model"], 1, "There are no images"),
        (["photos/a.png", "--on-bad-image", "stop", "--output", "/proc/x.csv"], 1, "Cannot write"),
        (["empty.png", "--on-bad-image", "stop"], 1, "it is empty"),
        (["empty.png"], 1, "None of the 1 images"),
        (["empty.png", "--output", "x.csv"], 1, "No image could be captioned"),
    ],
)
def test_errors_are_one_message_and_a_status(photos, capsys, arguments, status, words):
    (photos.parent / "empty.png").touch()
    captured = said(capsys, *arguments, status=status)
    assert words in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--batch-size", "0"], "batch_size=0"), (["--output", "x.doc"], "say which format")],
)
def test_wrong_flags_are_usage_errors(capsys, arguments, words):
    with pytest.raises(SystemExit) as exit_:
        main(["caption", "photos", "--model", "model", *arguments])
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert words in " ".join((captured.err + captured.out).replace("│", " ").split())
