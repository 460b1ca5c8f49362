"""Images inside zip files, read where they lie: nothing is unpacked."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.errors import DataError, ImageError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

MEMBER_BYTES = 256 * 2**20  # no photo is larger; a bomb claims to be
ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, IndexError,
              RuntimeError, ValueError, OverflowError, struct.error, zlib.error)  # fmt: skip

_ENCRYPTED = 1  # bit of the flags
_HEADER = struct.Struct("<4s5H3I2H")  # of a member: APPNOTE.TXT of PKWARE, 4.3.7


@dataclass(frozen=True)
class ZipMember:
    """An image inside a zip file. Each read opens the file anew, so threads and forks may share it.

    offset: of the member's header; compressed, size: bytes; method: 0 stored, 8 deflated.
    """

    archive: str
    member: str
    offset: int
    compressed: int
    size: int
    method: int
    crc: int

    def __str__(self) -> str:
        return f"{self.member} in {self.archive}"

    def read_bytes(self) -> bytes:
        """The encoded image. Raises OSError, or ImageError where the zip is damaged."""
        if self.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ImageError(
                "it is encrypted, or compressed in a way that is not read inside zip files; "
                "unpack the zip"
            )
        if max(self.size, self.compressed) > MEMBER_BYTES:
            raise ImageError(f"it is larger than {MEMBER_BYTES // 2**20} MiB")
        with open(self.archive, "rb") as file:
            file.seek(self.offset)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size or header[:4] != b"PK\3\4":
                raise ImageError("the zip file is damaged, or has changed since it was opened")
            *_, name_length, extra_length = _HEADER.unpack(header)
            file.seek(name_length + extra_length, 1)
            content = file.read(self.compressed)
        if self.method == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
            except zlib.error as error:
                raise ImageError(f"the zip file is damaged ({error})") from None
        if len(content) != self.size or zlib.crc32(content) != self.crc:
            raise ImageError("the zip file is damaged: the image's checksum does not hold")
        return content


def zip_members(archive: Path) -> datasets.Dataset:
    """The files inside a zip: one column, `image`, of structs with the fields of `ZipMember`.

    Its directory is read once and then kept in captionkit's cache. Raises DataError.
    """
    from captionkit.data.table_cache import memory_mapped

    try:
        return memory_mapped(archive.stem, archive, ("zip", 1), lambda: _directory(archive))
    except (OSError, *ZIP_ERRORS) as error:
        raise DataError(
            f"{archive} cannot be read as a zip file ({error}): it was cut off or damaged on its "
            "way. Delete it and fetch it again."
        ) from None


def _directory(archive: Path) -> pa.Table:
    import pyarrow as pa

    with zipfile.ZipFile(archive) as opened:
        files = [info for info in opened.infolist() if not info.filename.endswith("/")]
    readable = [-1 if info.flag_bits & _ENCRYPTED else info.compress_type for info in files]
    columns = {
        "archive": pa.array([str(archive)] * len(files), pa.string()),
        "member": pa.array([info.filename for info in files], pa.string()),
        "offset": pa.array([info.header_offset for info in files], pa.int64()),
        "compressed": pa.array([info.compress_size for info in files], pa.int64()),
        "size": pa.array([info.file_size for info in files], pa.int64()),
        "method": pa.array(readable, pa.int32()),
        "crc": pa.array([info.CRC for info in files], pa.int64()),
    }
    struct_type = pa.struct([(name, column.type) for name, column in columns.items()])
    fields = [struct_type.field(i) for i in range(struct_type.num_fields)]
    return pa.table({"image": pa.StructArray.from_arrays(list(columns.values()), fields=fields)})
