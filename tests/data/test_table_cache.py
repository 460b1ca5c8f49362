import os

import pyarrow as pa
import pytest

from captionkit.data.dataset import cache_dir
from captionkit.data.table_cache import memory_mapped


def table(*values) -> pa.Table:
    return pa.table({"a": pa.array(values, pa.int64())})


def unmade() -> pa.Table:
    raise AssertionError("it was made again")


@pytest.fixture(autouse=True)
def _own(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "source").write_bytes(b"x" * 200_000)


def test_it_is_made_once(tmp_path):
    source = tmp_path / "source"
    assert memory_mapped("t", source, (), lambda: table(1, 2))["a"][:] == [1, 2]
    assert memory_mapped("t", source, (), unmade)["a"][:] == [1, 2]
    assert len(os.listdir(cache_dir() / "tables")) == 1


@pytest.mark.parametrize("changed", ["size", "time", "start", "end", "what", "path"])
def test_it_is_made_anew_for_another_source(tmp_path, changed):
    source = tmp_path / "source"
    memory_mapped("t", source, ("a",), lambda: table(1))
    status, content = source.stat(), bytearray(source.read_bytes())
    if changed == "size":
        content += b"y"
    if changed in ("start", "end"):
        content[0 if changed == "start" else -1] = ord("y")
    if changed == "path":
        source = tmp_path / "other"
    source.write_bytes(content)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + (changed == "time")))
    what = ("b",) if changed == "what" else ("a",)
    assert memory_mapped("t", source, what, lambda: table(2))["a"][:] == [2]


def test_a_file_that_lost_its_end_is_made_anew(tmp_path):
    whole = table(*range(30_000))
    memory_mapped("t", tmp_path / "source", (), lambda: whole)
    (file,) = (cache_dir() / "tables").iterdir()
    content = file.read_bytes()
    for size in range(8, len(content), len(content) // 40 // 8 * 8):
        file.write_bytes(content[:size])
        again = memory_mapped("t", tmp_path / "source", (), lambda: whole)
        assert len(again) == 30_000


@pytest.mark.parametrize("content", [b"", b"not arrow at all" * 99])
def test_a_damaged_file_is_made_anew(tmp_path, content):
    memory_mapped("t", tmp_path / "source", (), lambda: table(1))
    (file,) = (cache_dir() / "tables").iterdir()
    file.write_bytes(content)
    assert memory_mapped("t", tmp_path / "source", (), lambda: table(3))["a"][:] == [3]
    assert memory_mapped("t", tmp_path / "source", (), unmade)["a"][:] == [3]


def test_nothing_is_left_of_one_that_failed(tmp_path):
    with pytest.raises(AssertionError):
        memory_mapped("t", tmp_path / "source", (), unmade)
    assert not (cache_dir() / "tables").exists()


def test_without_a_cache_it_stays_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path / "source"))  # a file is in the way
    with pytest.warns(UserWarning, match="cannot be written .* Set CAPTIONKIT_CACHE"):
        assert memory_mapped("t", tmp_path / "source", (), lambda: table(4))["a"][:] == [4]
