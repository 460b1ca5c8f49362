"""Files inside a tar, read where they lie: nothing is unpacked."""

from __future__ import annotations

import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from captionkit.data.paths import is_unicode
from captionkit.errors import DataError, ImageError

MEMBER_BYTES = 256 * 2**20  # of a compressed tar; no photo is larger, a bomb is
HEADER_BYTES = 2**20  # of the long names and the attributes of a member
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
          tarfile.SOLARIS_XHDTYPE)  # fmt: skip
# TypeError: of tarfile, where a gzip header ends early
_TAR_ERRORS = (OSError, EOFError, tarfile.TarError, ValueError, OverflowError, TypeError,
               zlib.error, lzma.LZMAError)  # fmt: skip
# a tar begins with a file's name, which may be one of the shorter signatures
_COMPRESSED = {
    b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"(\xb5/\xfd": "zstd",
}  # fmt: skip


class BoundedHeader(tarfile.TarInfo):
    """A header of a tar. One that announces more than HEADER_BYTES of names is refused.

    tarfile reads such a header whole, and in a compressed tar a few bytes stand for any number.
    """

    def _proc_member(self, opened: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _NAMES and not 0 <= self.size <= HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        if self.size < 0:
            raise tarfile.ReadError("a file of less than no bytes")
        return super()._proc_member(opened)  # type: ignore[misc]


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
            # a header may claim any size, and Python makes room for what it is asked to read
            if self.offset + self.size > os.fstat(file.fileno()).st_size:
                raise ImageError("the tar is shorter than it says, or has become shorter")
            file.seek(self.offset)
            return file.read(self.size)


def compression(archive: Path) -> str | None:
    """How a tar is compressed: "gzip", ..., or None. Raises DataError if it cannot be read."""
    try:
        with archive.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise DataError(f"Cannot read {archive}: {error.strerror or error}.") from None
    return next((kind for mark, kind in _COMPRESSED.items() if start.startswith(mark)), None)


def members(archive: Path) -> Iterator[TarMember]:
    """The files of an uncompressed tar in their order, names normalised. Raises DataError.

    Links, devices and names that lead out of the archive are refused, not skipped.
    """
    if kind := compression(archive):
        raise DataError(
            f"{archive} is compressed ({kind}): its images cannot be found without reading it from "
            f"the start each time. Unpack the compression (`{kind} -d`), which costs next to "
            "nothing for photos, or set streaming=True."
        )
    try:
        with tarfile.open(archive, "r:", tarinfo=BoundedHeader) as opened:
            for info in opened:
                if _is_file(info, archive):
                    name = _normal(info.name, archive)
                    yield TarMember(str(archive), name, info.offset_data, info.size)
            _check_end(archive, opened.offset)
    except _TAR_ERRORS as error:
        raise _unreadable(archive, error) from None


def contents(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a tar, compressed or not, in one pass. Raises DataError."""
    try:
        with tarfile.open(archive, "r|*", tarinfo=BoundedHeader) as opened:
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
    except _TAR_ERRORS as error:
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
    if not is_unicode(name):
        raise DataError(f"{archive}: the name {name!a} is not UTF-8. Pack it under another one.")
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
