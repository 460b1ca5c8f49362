"""Files inside a tar, read where they lie: nothing is unpacked."""

from __future__ import annotations

import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from captionkit.errors import DataError, ImageError

MEMBER_BYTES = 256 * 2**20  # of a compressed tar; no photo is larger, a bomb is
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}


@dataclass(frozen=True)
class TarMember:
    """A file inside a tar. Each read opens the tar anew, so threads and processes may share it."""

    archive: str
    member: str
    offset: int  # of the content
    size: int  # bytes

    def __str__(self) -> str:
        return f"{self.member} in {self.archive}"

    def read_bytes(self) -> bytes:
        """The content. Raises OSError, or ImageError where the tar has become shorter."""
        with open(self.archive, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise ImageError("the tar has become shorter since it was indexed")
        return content


def compression(archive: Path) -> str | None:
    """How a tar is compressed: "gzip", ..., or None. Raises DataError if it cannot be read."""
    try:
        with archive.open("rb") as file:
            return _COMPRESSED.get(file.read(2))
    except OSError as error:
        raise DataError(f"Cannot read {archive}: {error.strerror or error}.") from None


def members(archive: Path) -> Iterator[TarMember]:
    """The files of an uncompressed tar in their order, names normalised. Raises DataError.

    Links, devices and names that lead out of the archive are refused, not skipped.
    """
    if kind := compression(archive):
        raise DataError(
            f"{archive} is compressed ({kind}): its images cannot be found without reading it from "
            "the start each time. Unpack the compression (`gunzip`), which costs next to nothing "
            "for photos, or set streaming=True."
        )
    try:
        with tarfile.open(archive, "r:") as opened:
            for info in opened:
                if _is_file(info, archive):
                    name = _normal(info.name, archive)
                    yield TarMember(str(archive), name, info.offset_data, info.size)
            _check_end(archive, opened.offset)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise _unreadable(archive, error) from None


def contents(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a tar, compressed or not, in one pass. Raises DataError."""
    try:
        with tarfile.open(archive, "r|*") as opened:
            for info in opened:
                if not _is_file(info, archive):
                    continue
                name = _normal(info.name, archive)
                if info.size > MEMBER_BYTES:
                    raise DataError(
                        f"{name} in {archive} is larger than {MEMBER_BYTES // 2**20} MiB."
                    )
                file = opened.extractfile(info)
                yield name, file.read() if file else b""
    except (OSError, EOFError, tarfile.TarError, ValueError, zlib.error) as error:
        raise _unreadable(archive, error) from None


def _check_end(archive: Path, offset: int) -> None:
    """A tar ends in zeros; one without was cut off between two of its files, and looks whole."""
    with archive.open("rb") as file:
        file.seek(offset)
        if not (block := file.read(tarfile.BLOCKSIZE)) or any(block):
            raise tarfile.ReadError("its end is missing")


def _is_file(info: tarfile.TarInfo, archive: Path) -> bool:
    if info.isdir():
        return False
    if info.issym() or info.islnk():
        raise DataError(
            f"{archive}: {info.name} is a link, to {info.linkname}. Links inside a tar are not "
            "followed; pack the files themselves (tar --dereference --hard-dereference)."
        )
    if not info.isreg() or info.issparse():
        raise DataError(f"{archive}: {info.name} is neither a file nor a folder.")
    # what macOS puts beside every file
    return not posixpath.basename(info.name).startswith("._") and "__MACOSX" not in info.name


def _normal(name: str, archive: Path) -> str:
    normal = posixpath.normpath(name)
    if normal.split("/")[0] in ("", ".."):
        raise DataError(f"{archive}: the name {name!r} leads out of the archive.")
    return normal


def _unreadable(archive: Path, error: Exception) -> DataError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or "it is cut"
    size = f" of {os.path.getsize(archive):,} bytes" if archive.is_file() else ""
    return DataError(
        f"{archive}{size} cannot be read as a tar ({reason}): it is none, or was cut off or "
        "damaged on its way."
    )
