"""Writing files so that a reader, or a crash, finds the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, owner: str) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends without an error.

    The temporary file lies in the same folder. Its name depends on `owner` alone: it is short,
    whatever the length of the other's, and the next run takes up the one that a killed run left.
    The mode of an existing file is kept, and a link stays a link.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    short = hashlib.blake2b(os.fsencode(owner), digest_size=4).hexdigest()
    temporary = target.with_name(f".captionkit-{short}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def settle(folders: set[Path]) -> None:
    """Make the new names in these folders durable, where the system can."""
    for folder in folders:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
