"""One image of a bulk run: what it is called, where its bytes are, what identifies it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from captionkit.data.images import is_url


@dataclass(frozen=True, slots=True)
class ArchivePart:
    """Bytes inside a larger file, read when the image is decoded and not before."""

    file: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """The bytes; fewer than `size` where the file is cut off."""
        with open(self.file, "rb") as file:
            left = max(0, os.fstat(file.fileno()).st_size - self.offset)
            file.seek(self.offset)
            return file.read(min(self.size, left))


@dataclass(frozen=True, slots=True)
class Item:
    """One image to caption.

    where: its absolute path, its URL, or `archive::member`. name: its path below what the user
    named, for captions that are kept in another folder. source: what is decoded. problem: why it
    cannot be captioned, where that is known before it is opened.
    """

    where: str
    name: str
    source: str | bytes | ArchivePart
    problem: str | None = None

    @property
    def file(self) -> Path | None:
        """The image's own file, which a caption can lie beside."""
        own = isinstance(self.source, str) and not is_url(self.source)
        return Path(self.where) if own else None


def key_of(item: Item, home: str) -> str:
    """What identifies an image in a file in the folder `home`: relative where it lies below it.

    So a folder that is moved with its captions keeps them.
    """
    inside = home.rstrip("/") + "/"
    return item.where.removeprefix(inside)


def where_of(key: str, home: str) -> str:
    """The path, URL or `archive::member` of a key."""
    return key if is_url(key) else os.path.join(home, key)


def digest(key: str) -> bytes:
    """16 bytes that stand for a key, so that a million of them stay small."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def displayed(where: str) -> str:
    """A path or name for a message: relative to here, and nothing that a terminal would obey."""
    here = os.getcwd().rstrip("/") + "/"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in where.removeprefix(here)
    )
