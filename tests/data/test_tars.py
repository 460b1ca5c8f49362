import io
import tarfile

import pytest

from captionkit.data import tars
from captionkit.data.tars import contents, members
from captionkit.errors import DataError


def pack(path, compression="", **files):
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("compression", "name"), [("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")])
def test_compressed_tars_are_read_in_one_pass_only(tmp_path, compression, name):
    files = {"a": b"1" * 1000, "b": b"", "c": b"3"}
    path = pack(tmp_path / "a.tar", compression, **files)
    assert dict(contents(path)) == files
    with pytest.raises(DataError, match=rf"is compressed \({name}\)"):
        list(members(path))


@pytest.mark.parametrize("start", ["BZ", "(\u00b5", "\u00fd7"])
def test_a_name_like_a_signature_is_a_name(tmp_path, start):
    path = pack(tmp_path / "a.tar", **{f"{start}_1.txt": b"x"})
    assert [member.member for member in members(path)] == [f"{start}_1.txt"]


def test_a_file_in_a_compressed_tar_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MEMBER_BYTES", 1000)
    path = pack(tmp_path / "a.tar", "gz", small=bytes(1000), bomb=bytes(1001))
    with pytest.raises(DataError, match=r"bomb in .* is larger than"):
        list(contents(path))


def test_every_cut_is_noticed(tmp_path):
    files = {f"{i}.jpg": bytes([i]) * (300 * i) for i in range(8)}
    path = pack(tmp_path / "a.tar", **files)
    whole = path.read_bytes()
    last = max(member.offset + member.size for member in members(path))
    end = -(-last // 512) * 512  # the end mark follows the last file's padding
    for size in range(0, end + 1, 256):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=rf"of {size:,} bytes cannot be read as a tar"):
            list(members(path))
    path.write_bytes(whole[: end + 1024])
    assert {m.member: m.read_bytes() for m in members(path)} == files


def test_sparse_files_are_refused(tmp_path):
    # their content does not lie in the tar as it is
    info = tarfile.TarInfo("sparse.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    (tmp_path / "a.tar").write_bytes(bytes(block) + bytes(1024))
    with pytest.raises(DataError, match=r"neither a file nor a folder|cannot be read"):
        list(members(tmp_path / "a.tar"))


def test_a_tar_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        list(members(tmp_path / "a.tar"))
    with pytest.raises(DataError, match="cannot be read as a tar"):
        list(contents(tmp_path / "a.tar"))
