import dataclasses
import io
import operator
import struct
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from PIL import Image

from captionkit.data import zips
from captionkit.data.image_column import ImageColumn
from captionkit.data.images import open_image
from captionkit.data.zips import ZipMember, zip_members
from captionkit.errors import DataError, ImageError


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def make(path, count=5, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images/", b"")
        for i in range(count):
            archive.writestr(f"images/{i}.png", png(i))
    return path


def members(path) -> list[ZipMember]:
    column = ImageColumn(zip_members(path))
    return [column[i] for i in range(len(column))]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_each_member_is_read_where_it_lies(tmp_path, method):
    path = make(tmp_path / "a.zip", method=method)
    found = members(path)
    with zipfile.ZipFile(path) as archive:
        assert [member.read_bytes() for member in found] == [
            archive.read(name) for name in archive.namelist() if not name.endswith("/")
        ]
    assert open_image(found[3]).getpixel((0, 0)) == (3, 0, 0)
    assert str(found[3]) == f"images/3.png in {path}"


def test_a_zip_behind_other_bytes_and_with_extra_fields(tmp_path):
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.write(b"#!/bin/sh\n" * 9)
        with zipfile.ZipFile(file, "a") as archive:
            info = zipfile.ZipInfo("é.png")
            info.extra = struct.pack("<HH4s", 0x9999, 4, b"abcd")
            archive.writestr(info, png(7))
            with archive.open("big.png", "w", force_zip64=True) as member:
                member.write(png(8))
    assert [member.read_bytes() for member in members(path)] == [png(7), png(8)]


def test_threads_and_processes_read_at_once(tmp_path):
    found = members(make(tmp_path / "a.zip", count=40)) * 5
    expected = [png(i) for i in range(40)] * 5
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(operator.methodcaller("read_bytes"), found)) == expected
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(operator.methodcaller("read_bytes"), found[:40])) == expected[:40]
    assert len(ForkingPickler.dumps(found[0])) < 500


def test_the_directory_is_kept_until_the_zip_changes(tmp_path, monkeypatch):
    path = make(tmp_path / "a.zip")
    assert len(zip_members(path)) == 5

    def unread(*_):
        raise AssertionError("the directory was read again")

    with monkeypatch.context() as patch:
        patch.setattr(zips, "_directory", unread)
        assert len(zip_members(path)) == 5
    make(path, count=7)
    assert len(zip_members(path)) == 7


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -30])
def test_a_zip_that_is_cut_off_is_named(tmp_path, cut):
    path = make(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.zip cannot be read as a zip file.*fetch it again"):
        zip_members(path)


def test_damage_inside_is_an_error_of_that_image(tmp_path):
    path = make(tmp_path / "a.zip", method=zipfile.ZIP_DEFLATED)
    found = members(path)
    content = bytearray(path.read_bytes())
    for member in (found[1], found[2]):
        start = member.offset + 30 + len(member.member)
        content[start + member.compressed // 2] ^= 0xFF
    content[found[4].offset] ^= 0xFF
    path.write_bytes(content)
    for i in (1, 2, 4):
        with pytest.raises(ImageError, match=rf"images/{i}\.png in .*a\.zip: the zip file is dam"):
            open_image(found[i])
    assert found[3].read_bytes() == png(3)
    path.write_bytes(content[: found[3].offset + 40])
    with pytest.raises(ImageError, match="the zip file is damaged"):
        open_image(found[3])
    path.unlink()
    with pytest.raises(ImageError, match="No such file"):
        open_image(found[3])


def test_bombs_are_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "MEMBER_BYTES", 10_000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(10**6))
    (bomb,) = members(path)
    with pytest.raises(ImageError, match="larger than"):
        bomb.read_bytes()
    # one that claims to be small is cut short
    with pytest.raises(ImageError, match="checksum does not hold"):
        dataclasses.replace(bomb, size=500).read_bytes()


def test_what_is_encrypted_or_packed_otherwise_says_so(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", png(1))
    with pytest.raises(ImageError, match="unpack the zip"):
        open_image(members(path)[0])
    make(path, count=1)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the last entry of the directory
    content[at + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match="encrypted"):
        open_image(members(path)[0])


def test_offsets_beyond_four_gigabytes(tmp_path):
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.seek(2**32 + 10)  # a hole, which takes no room
        file.write(b"x")
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("a.png", png(9))
    if path.stat().st_blocks * 512 > 10**8:
        pytest.skip("this file system has no sparse files")
    (member,) = members(path)
    assert member.offset > 2**32
    np.testing.assert_array_equal(np.asarray(open_image(member))[0, 0], (9, 0, 0))
