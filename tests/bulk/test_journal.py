"""Rows that are written are there, wherever the file is cut off."""

from __future__ import annotations

import errno
import os

import pytest

from captionkit.bulk.item import digest
from captionkit.bulk.journal import Journal

ROWS = [
    {"image": "a.png", "caption": "a dog", "score": -0.5},
    {"image": "name-\udcff\n😀.png", "caption": "line\nline", "score": None},
    {"image": "b.png", "failed": "it is empty"},
    {"image": "c.png", "caption": "", "score": -1.0},
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def test_rows_come_back(path):
    journal = Journal(path)
    assert journal.settings is None
    journal.begin({"model": "m"})
    journal.add(ROWS[:1])
    journal.applied()
    journal.add(ROWS[1:])
    for one in (journal, Journal(path)):
        assert one.settings == {"model": "m"}
        assert list(one.rows()) == ROWS
        assert list(one.pending()) == ROWS[1:]
        assert [one.is_done(digest(row["image"])) for row in ROWS] == [True, True, False, True]
        assert [one.has_failed(digest(row["image"])) for row in ROWS] == [False, False, True, False]
    journal.close()


def test_cut_off_anywhere_it_holds_the_lines_before(path):
    journal = Journal(path)
    journal.begin({})
    journal.add(ROWS)
    journal.close()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        again = Journal(path)
        kept = max(0, whole[:length].count(b"\n") - 1)
        assert list(again.rows()) == ROWS[:kept]
        again.add(ROWS[3:])
        again.close()
        assert list(Journal(path).rows()) == [*ROWS[:kept], ROWS[3]]


def test_a_later_row_replaces_an_earlier(path):
    journal = Journal(path)
    journal.begin({})
    journal.add([*ROWS, {"image": "b.png", "caption": "now", "score": 0.0}])
    journal.add([{"image": "a.png", "failed": "gone"}])
    for one in (journal, Journal(path)):
        assert one.has_failed(digest("a.png"))
        assert one.is_done(digest("b.png"))
        places = one.places()
        names = [row["image"] for row in one.pending_captions(places)]
        assert names == [ROWS[1]["image"], "c.png", "b.png"]
        assert [one.row_at(places.get(digest(name)))["image"] for name in names] == names
        one.close()


def test_damage_in_the_middle_is_said(path):
    journal = Journal(path)
    journal.begin({})
    journal.add(ROWS)
    journal.close()
    lines = path.read_bytes().split(b"\n")
    lines[2] = b"\0" * len(lines[2])
    path.write_bytes(b"\n".join(lines))
    with pytest.warns(UserWarning, match="3 lines of it are lost"):
        assert list(Journal(path).rows()) == ROWS[:1]


def test_a_full_disk_leaves_whole_rows(path, monkeypatch):
    journal = Journal(path)
    journal.begin({})
    journal.add(ROWS[:1])

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            journal.add(ROWS[1:2])
    assert journal.is_done(digest("a.png"))
    assert not journal.is_done(digest(ROWS[1]["image"]))
    journal.add(ROWS[2:])
    journal.close()
    assert list(Journal(path).rows()) == [ROWS[0], *ROWS[2:]]


def test_other_settings_begin_another_and_keep_the_first(path):
    journal = Journal(path)
    journal.begin({"model": "one"})
    journal.add(ROWS)
    journal.begin({"model": "two"})
    journal.close()
    again = Journal(path)
    assert again.settings == {"model": "two"}
    assert not any(again.is_done(digest(row["image"])) for row in ROWS)
    assert not list(again.rows())
    assert list(Journal(path.with_name("previous.jsonl")).rows()) == ROWS
