import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.data.paths import below, data_folder, outside, spellings
from captionkit.errors import DataError

PARTS = st.lists(st.sampled_from(["a", "b.jpg", "..", ".", "", "...", "..a"]), max_size=6)


@given(PARTS, st.booleans())
def test_below_is_what_the_parts_say(parts, absolute):
    path = "/".join((["", "data", "set"] if absolute else []) + parts)
    place = [] if path.startswith("/") else ["data", "set"]
    for part in path.split("/"):
        if part == "..":
            place = place[:-1]
        elif part not in ("", "."):
            place = [*place, part]
    inside = place[:2] == ["data", "set"]
    expected = ("/".join(place[2:]) or ".") if inside else None
    assert below(path, ["/data/set"]) == expected


def test_of_several_folders_the_first_counts():
    assert below("/b/x.jpg", ["/a", "/b"]) == "x.jpg"
    assert below("/a/b/x.jpg", ["/a/b", "/a"]) == "x.jpg"
    assert below("/c/x.jpg", ["/a", "/b"]) is None
    assert below("/ab/x.jpg", ["/a"]) is None


def test_a_folder_behind_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    names = spellings(tmp_path / "link")
    for place in ("real", "link"):
        assert below(os.fspath(tmp_path / place / "a.jpg"), names) == "a.jpg"


def test_messages(tmp_path):
    assert data_folder(str(tmp_path), "x") == tmp_path
    for bad, expected in (
        (None, "'x' needs data_dir"),
        (str(tmp_path / "none"), "does not exist"),
        (str(Path(__file__)), "is not a folder"),
    ):
        with pytest.raises(DataError, match=expected):
            data_folder(bad, "x")
    text = str(outside("../a.jpg", "/data", "t.csv, line 3"))
    assert "t.csv, line 3: the image '../a.jpg' lies outside the data folder /data" in text
    assert "allow_outside_paths" in text
