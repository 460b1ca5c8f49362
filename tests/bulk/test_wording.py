"""From the model's text to the caption that is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.bulk.config import BulkConfig
from captionkit.bulk.wording import decoded, kept_caption, one_line
from captionkit.errors import DataError


@pytest.mark.parametrize(
    ("settings", "before", "expected"),
    [
        ({}, None, "a dog"),
        ({}, "old", "a dog"),
        ({"existing": "overwrite"}, "old", "a dog"),
        ({"existing": "append"}, "old\n", "old, a dog"),
        ({"existing": "prepend"}, "old\n", "a dog, old"),
        ({"existing": "append"}, "  \n", "a dog"),
        ({"existing": "append", "separator": " "}, "old", "old a dog"),
        ({"existing": "append"}, "one\ntwo\n", "one\ntwo\na dog"),
        ({"prefix": "photo of ", "suffix": "."}, None, "photo of a dog."),
        ({"trigger": "sks"}, None, "sks, a dog"),
        ({"trigger": "dog"}, None, "a dog"),
        ({"trigger": "do"}, None, "do, a dog"),
        ({"trigger": "sks", "existing": "append"}, "old", "sks, old, a dog"),
        ({"trigger": "sks", "existing": "append"}, "sks, old", "sks, old, a dog"),
        ({"trigger": "sks", "existing": "prepend", "prefix": "~"}, "old", "sks, ~a dog, old"),
    ],
)
def test_words_around_a_caption(settings, before, expected):
    assert kept_caption("a dog", before, BulkConfig(format="txt", **settings)) == expected


@given(st.text(st.characters(codec=None)))
def test_a_caption_is_one_line_that_can_be_written(text):
    line = one_line(text)
    line.encode("utf-8")
    assert "\n" not in line
    assert all(c >= " " for c in line)
    assert one_line(line) == line


def test_one_line_keeps_words():
    assert one_line(" a\tdog\n  and\x00a 🐈\u200d\x1b[31m ") == "a dog and a 🐈\u200d [31m"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marked_encodings_are_read(encoding):
    assert decoded("ein Kätzchen".encode(encoding)) == "ein Kätzchen"


@pytest.mark.parametrize(
    "content", ["Kätzchen".encode("latin-1"), b"\xff\xfea", "é".encode("cp437")]
)
def test_other_encodings_are_refused(content):
    with pytest.raises(DataError, match="left as it is"):
        decoded(content)
