"""Where data lie: the user's folder, and paths in metadata, which were written by others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from captionkit.errors import DataError


def data_folder(data_dir: str | None, source: str) -> Path:
    """`data_dir`, absolute. Raises DataError where there is none."""
    if data_dir is None:
        raise DataError(f"The dataset {source!r} needs data_dir, the folder of its files.")
    folder = Path(data_dir)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"data_dir={data_dir!r} {what}.")
    return folder.absolute()


def below(path: str, folders: Sequence[str]) -> str | None:
    """A path as it is relative to the first folder that it lies in, with forward slashes.

    Relative paths start at each of the folders. None: it leaves them all.
    """
    for folder in folders:
        inside = os.path.relpath(os.path.join(folder, path), folder)
        if inside != os.pardir and not inside.startswith(os.pardir + os.sep):
            return Path(inside).as_posix()
    return None


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; what no system could name is not there."""
    try:
        return path.exists()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def is_unicode(name: str) -> bool:
    """Whether a name can be written as UTF-8: some on disks and in archives are other bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def spellings(folder: Path) -> tuple[str, str]:
    """A folder as it is named, and as it is without links: paths may be written in either way."""
    return str(folder), os.path.realpath(folder)


def outside(path: str, folder: str, where: str) -> DataError:
    """The error for a path that leaves its data folder."""
    return DataError(
        f"{where}: the image {path!r} lies outside the data folder {folder}. Set data_dir to a "
        "folder that holds all images; or, if you trust whoever wrote the paths, set "
        "allow_outside_paths."
    )
