"""Old content or new, whatever happens in between."""

from __future__ import annotations

import os

import pytest

from captionkit.bulk.atomic import replacing


def interrupted(path, error):
    with replacing(path, "run") as file:
        file.write(b"new")
        raise error


def test_content_is_replaced_and_nothing_is_left(tmp_path):
    path = tmp_path / "a.txt"
    for content in (b"one", b"two"):
        with replacing(path, "run") as file:
            file.write(content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_after_an_error_the_old_content_is_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(error):
        interrupted(path, error)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_run_left_is_taken_up(tmp_path):
    with replacing(tmp_path / "a.txt", "run"):
        [temporary] = tmp_path.iterdir()
    temporary.write_bytes(b"half of an earlier, longer caption")
    (tmp_path / "a.txt").unlink()
    with replacing(tmp_path / "b.txt", "run") as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == ["b.txt"]
    assert (tmp_path / "b.txt").read_bytes() == b"new"


@pytest.mark.parametrize(
    "name", ["n" * 251 + ".txt", "é" * 125 + ".txt", "new\nline.txt", "😀.txt"]
)
def test_any_name_that_the_system_has(tmp_path, name):
    with replacing(tmp_path / name, "run") as file:
        file.write(b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def test_links_stay_links_and_modes_stay(tmp_path):
    target, link = tmp_path / "far" / "a.txt", tmp_path / "a.txt"
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    with replacing(link, "run") as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_nothing_is_written_through_a_planted_link(tmp_path):
    with replacing(tmp_path / "a.txt", "run") as file:
        temporary = os.listdir(tmp_path)[0]
        file.write(b"x")
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / temporary).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"), replacing(tmp_path / "b.txt", "run"):
        pass
    assert victim.read_bytes() == b"mine"
