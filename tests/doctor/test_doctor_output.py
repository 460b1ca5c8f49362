"""What a user sees: text, JSON, the page, and the exit status."""

from __future__ import annotations

import json

import pytest
from broken_images import SCENE, encoded

from captionkit.cli import main
from captionkit.doctor import examine
from captionkit.doctor.findings import Diagnosis, Finding, Item, in_order
from captionkit.doctor.kinds import KINDS, LEVELS
from captionkit.doctor.text import as_text, verdict

GOOD = {f"{i}.png": encoded(SCENE // (i + 1), "PNG") for i in range(4)}
CAPTIONS = {name: f"picture number {i}" for i, name in enumerate(GOOD)}


def test_kinds_are_told_most_serious_first():
    levels = [kind.level for kind in KINDS.values()]
    assert levels == sorted(levels, key=LEVELS.index)
    cases = {kind: [Item((kind,))] for kind in reversed(KINDS)}
    assert [finding.kind for finding in in_order(cases)] == list(KINDS)
    for kind in KINDS.values():
        assert kind.title[0].isupper()
        assert not kind.title.endswith(".")
        assert kind.advice.endswith(".")


def test_text_of_a_diagnosis():
    items = [Item((f"{i}.jpg",), "0 bytes") for i in range(7)]
    group = Item(tuple("abcdef"), "alike")
    diagnosis = Diagnosis(
        "x", {"train": (9, 1200)}, in_order({"empty_file": items, "same_bytes": [group]})
    )
    text = as_text(diagnosis)
    assert text.splitlines() == [
        "x: 9 images, 1,200 captions",
        "",
        "ERRORS: these stop training, lose data or spoil an evaluation",
        "",
        "  Empty files (0 bytes): 7 files",
        "  -> Get them anew, or go on without them: --on-bad-image skip.",
        *(f"     {i}.jpg: 0 bytes" for i in range(5)),
        "     ... and 2 more",
        "",
        "WARNINGS: look at these",
        "",
        "  The same file several times: 1 group",
        "  -> Keep one, with all the captions: copies count double. --group-by-content keeps them "
        "on one side",
        "     of the split.",
        "     a, b, c, d, ... (6 in all): alike",
        "",
        "1 kind of error, 1 kind of warning.",
    ]
    assert verdict(Diagnosis("x", {}, ())) == "Nothing found."
    note = Diagnosis("x", {}, in_order({"rotated": [Item(("a",))] * 2}))
    assert verdict(note) == "1 kind of note. Nothing serious."
    assert note.passes(strict=True)
    assert note.findings[0].count == "2 images"
    assert Finding("rotated", (Item(("a",)),)).count == "1 image"


def test_exit_status_0_nothing_serious(listed, capsys):
    folder = listed(GOOD, CAPTIONS)
    assert main(["doctor", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == ""  # no bar where there is no terminal
    assert out.startswith(f"imagefolder {folder}: 4 images, 4 captions\n")
    assert out.endswith("\nNothing found.\n")


def test_exit_status_1_errors_and_with_strict_warnings(listed, capsys):
    copies = listed({**GOOD, "copy.png": GOOD["0.png"]}, {**CAPTIONS, "copy.png": "again"})
    assert main(["doctor", str(copies)]) == 0
    assert main(["doctor", "--strict", str(copies)]) == 1
    assert "0.png, copy.png" in capsys.readouterr().out
    broken = listed({**GOOD, "bad.png": b"x"}, {**CAPTIONS, "bad.png": "bad"}, "broken")
    assert main(["doctor", str(broken)]) == 1


def test_exit_status_2_usage(listed, capsys):
    folder = str(listed(GOOD, CAPTIONS))
    assert main(["doctor"]) == 2
    assert main(["doctor", folder, "--dataset", "critters"]) == 2
    assert main(["doctor", folder, "--threads", "0"]) == 2
    with pytest.raises(SystemExit) as error:
        main(["doctor", folder, "--colour", "red"])
    assert error.value.code == 2
    assert main(["doctor", "./nowhere"]) == 1
    assert "There is no file or folder ./nowhere" in capsys.readouterr().err


def test_json_holds_every_item(listed, capsys):
    images = {**GOOD, **{f"bad-{i}.png": b"x" for i in range(30)}}
    captions = CAPTIONS | {f"bad-{i}.png": f"bad number {i}" for i in range(30)}
    folder = listed(images, captions)
    assert main(["doctor", str(folder), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found == examine(str(folder)).to_dict()
    assert found["passes"] is False
    assert found["splits"] == {"train": {"images": 34, "captions": 34}}
    bad, *rest = found["findings"]
    assert (bad["kind"], bad["level"], bad["count"]) == ("unreadable", "error", 30)
    assert {name for item in bad["items"] for name in item["names"]} == {
        f"bad-{i}.png" for i in range(30)
    }
    assert rest[0]["kind"] == "same_bytes"
    assert found["tokens"] is None


def test_tokens_in_text_and_json(listed, capsys):
    folder = str(listed(GOOD, CAPTIONS))
    assert main(["doctor", folder, "--model", "git-tiny"]) == 0
    assert "median 5, 95 % up to 5, longest 5; the model allows" in capsys.readouterr().out
    assert main(["doctor", folder, "--model", "git-tiny", "--format", "json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert (tokens["model"], tokens["median"], tokens["lengths"]) == ("git-tiny", 5, {"5": 4})


def test_names_cannot_steer_the_terminal(listed, capsys):
    images = {**GOOD, "a\x1b[31m\nb.png": b"x"}
    folder = listed(images, {**CAPTIONS, "a\x1b[31m\nb.png": "bad"})
    assert main(["doctor", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "     a\\x1b[31m\\nb.png" in out
