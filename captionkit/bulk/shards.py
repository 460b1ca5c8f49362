"""Images in tar files, such as WebDataset shards: found by their place, never extracted."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

from captionkit.bulk.item import ArchivePart, Item, displayed
from captionkit.data.files import IMAGE_ENDINGS
from captionkit.data.tars import BoundedHeader
from captionkit.errors import DataError

TAR_ENDINGS = (".tar",)
COMPRESSED_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError)
_LARGEST = 2**30  # bytes; no photo has so many, and a header may claim anything


def images_in_tar(path: str) -> Iterator[Item]:
    """The images of a tar file in its order; links in it are passed over.

    A member whose name leads out of the archive, and a file that is cut off, are items with a
    problem. Raises DataError for what is no tar file at all.
    """
    path = os.path.abspath(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    try:
        archive = tarfile.open(path, "r:", tarinfo=BoundedHeader)  # noqa: SIM115 (closed below, with its own errors)
    except _TAR_ERRORS as error:
        raise DataError(
            f"{displayed(path)} is not a tar file that can be read ({error})."
        ) from None
    with archive:
        try:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or it keeps every header
                name = PurePosixPath(member.name)
                if not member.isreg() or name.suffix.lower() not in IMAGE_ENDINGS:
                    continue
                if any(part.startswith(".") and part != ".." for part in name.parts):
                    continue
                where = f"{path}::{name}"
                part = ArchivePart(path, member.offset_data, member.size)
                yield Item(where, f"{stem}/{name}", part, _problem(member, name))
        except _TAR_ERRORS as error:
            problem = f"the tar file is damaged, and what follows in it is lost ({error})"
            yield Item(path, stem, "", problem)


def refuse_compressed(path: str) -> None:
    """Raise DataError: an image inside a compressed archive has no place to be read from."""
    raise DataError(
        f"{displayed(path)} is compressed. Images are read in place, out of plain .tar files: "
        "uncompress it first (photos are compressed themselves, so that costs next to nothing)."
    )


def _problem(member: tarfile.TarInfo, name: PurePosixPath) -> str | None:
    if name.is_absolute() or ".." in name.parts:
        return "its name leads out of the archive"
    if member.sparse is not None:
        return "it is stored as a sparse file"
    return f"it is larger than {_LARGEST // 2**30} GiB" if member.size > _LARGEST else None
