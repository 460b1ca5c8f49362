"""Files that are there whole or not at all."""

from __future__ import annotations

import pytest

from captionkit.whole_files import whole_file


def test_what_was_written_is_there_when_the_block_ends(tmp_path):
    file = tmp_path / "a" / "b.txt"
    with whole_file(file) as partial:
        partial.write_text("new")
        assert not file.exists()
    assert [path.name for path in file.parent.iterdir()] == ["b.txt"]
    assert file.read_text() == "new"


def test_an_error_leaves_what_was_there(tmp_path):
    file = tmp_path / "b.txt"
    file.write_text("old")

    def interrupted():
        with whole_file(file) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]
    assert file.read_text() == "old"


def test_two_at_once_do_not_share_a_partial_file(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def write(number):
        with whole_file(tmp_path / "b.txt") as partial:
            partial.write_text(str(number) * 10_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    text = (tmp_path / "b.txt").read_text()
    assert text == text[0] * 10_000
    assert len(list(tmp_path.iterdir())) == 1
