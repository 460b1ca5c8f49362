"""Tar shards and zip files that others packed."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from fuzz.harness import fuzz
from fuzz.mutations import NUMBERS, Dice, any_file
from PIL import Image

from captionkit.bulk.shards import images_in_tar
from captionkit.data import webdataset
from captionkit.data.images import open_image
from captionkit.data.tars import contents, members
from captionkit.data.zips import ZipMember, zip_members
from captionkit.errors import DataError, ImageError
from captionkit.recipe import DataConfig


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"1.png": png(), "1.txt": b"a dog\n", "x/2.png": png(), "x/2.json": b'{"caption": "a cat"}'}


def tar(form: int, links: bool = False, long_names: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(("d" * 120 + "/" if long_names else "") + name)
            info.size = len(content)
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {"comment": "é" * 9}
            archive.addfile(info, io.BytesIO(content))
        if links:
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
                info = tarfile.TarInfo("l.png")
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
    return buffer.getvalue()[: 512 * 30]


TARS = [
    tar(form, long_names=long)
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    for long in (False, True)
] + [tar(tarfile.GNU_FORMAT, links=True)]
TYPES = [*b"\x00012345679gxLKSDMNVX", 0xFF]  # of members, real ones and made-up ones
PACKED = {".tar.gz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}


def hostile_header(dice: Dice) -> bytes:
    """A tar of which one header says something else, with the checksum that goes with it."""
    content = bytearray(dice.pick(TARS))
    at = 512 * dice.roll(len(content) // 512)
    what = dice.roll(6)
    if what == 0:
        content[at + 124 : at + 136] = b"%011o\0" % (dice.pick(NUMBERS) % 8**11)
    elif what == 1:  # base 256, as GNU tar writes what is too large for octal
        content[at + 124 : at + 136] = b"\x80\0\0\0" + struct.pack(">Q", dice.pick(NUMBERS) % 2**64)
    elif what == 2:
        content[at + 156] = dice.pick(TYPES)
    elif what == 3:
        name = dice.pick([b"../1.png", b"/1.png", b"", b"\xff.png", b"a\0b", b"./.", b"x/../../1"])
        content[at : at + 100] = name.ljust(100, b"\0")
    elif what == 4:
        content[at + 156], size = dice.pick(TYPES), dice.pick(NUMBERS) % 8**11
        content[at + 124 : at + 136] = b"%011o\0" % size
    else:
        content[at + 512 : at + 512] = b"%d path=%s\n" % (dice.roll(99), b"x" * dice.roll(40))
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    return bytes(content)


@pytest.mark.parametrize("ending", [".tar", *PACKED])
def test_tars(tmp_path, monkeypatch, ending):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path / "cache"))
    pack = PACKED.get(ending, lambda content: content)
    plain = any_file(TARS, (), hostile_header)
    packed = any_file([pack(content) for content in TARS])
    file = tmp_path / f"train{ending}"
    seen = iter(range(10**9))

    def make(dice: Dice) -> bytes:
        damaged_within = ending == ".tar" or dice.roll(2)
        return pack(plain(dice)) if damaged_within else packed(dice)

    def read(content: bytes) -> None:
        file.write_bytes(content)
        refusals = []
        for attempt in (_members, _contents, _streamed, _in_bulk):
            try:
                attempt(file)
            except DataError as error:
                refusals.append(error)
        if ending == ".tar" and next(seen) % 10 == 0:  # this one also writes a cache, which is slow
            webdataset.load(DataConfig(train_file=str(file)), "train")
        if refusals:
            raise refusals[0]

    fuzz(f"shards{ending}", make, read)


def _members(file: Path) -> None:
    for member in members(file) if file.suffix == ".tar" else ():
        assert ".." not in member.member.split("/")
        assert not member.member.startswith("/")
        _opened(member)


def _contents(file: Path) -> None:
    for name, content in contents(file):
        assert ".." not in name.split("/")
        assert isinstance(content, bytes)


def _streamed(file: Path) -> None:
    # not through the dataset: that makes a DataError of whatever comes out
    for example in webdataset._streamed(file, DataConfig(train_file=str(file))):
        assert example.captions


def _in_bulk(file: Path) -> None:
    for item in images_in_tar(str(file)) if file.suffix == ".tar" else ():
        if item.problem is None:
            assert ".." not in item.name.split("/")
            _opened(item.source)


def _opened(member: object) -> None:
    with contextlib.suppress(ImageError):  # not all of them are pictures
        open_image(member)


# ---- zip files ---------------------------------------------------------------------------------


def zipped(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in FILES.items():
            archive.writestr(f"train2017/{name}", content)
    return buffer.getvalue()


ZIPS = [zipped(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)]


def test_zips(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "train2017.zip"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        for row in zip_members(file)["image"]:
            _opened(ZipMember(**row))

    fuzz("zip", any_file(ZIPS, [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7"]), read)
