"""The images of a dataset, row for row, as sources that `open_image` takes: nothing is decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.data.fetch import RemoteImage, is_url
from captionkit.data.tars import TarMember
from captionkit.data.zips import ZipMember

if TYPE_CHECKING:
    import datasets

    from captionkit.types import ImageSource


class ImageColumn:
    """One column of Arrow: structs {bytes, path}, {path, offset, size} or those of a `ZipMember`,
    paths, or bytes.

    root: the folder that relative paths start at; empty: the working directory.
    """

    def __init__(self, rows: datasets.Dataset, root: str = "") -> None:
        self.rows, self.root = rows, root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> ImageSource:
        (value,) = self.rows[row].values()
        return as_source(value, self.root)

    def select(self, rows: Sequence[int] | np.ndarray) -> ImageColumn:
        """These rows, in this order."""
        return ImageColumn(self.rows.select(rows), self.root)


class ImageParts:
    """The images of several datasets, one after the other."""

    def __init__(
        self,
        parts: Sequence[ImageColumn | ImageParts],
        places: np.ndarray | None = None,
    ) -> None:
        self.parts = parts
        if places is None:
            numbers = [np.arange(len(part)) for part in parts]
            which = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
            places = np.stack([which, np.concatenate(numbers)], axis=1)
        self.places = places  # (images, 2): which part, and which row of it

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> ImageSource:
        part, inside = self.places[row].tolist()
        return self.parts[part][inside]

    def select(self, rows: Sequence[int] | np.ndarray) -> ImageParts:
        """These rows, in this order."""
        return ImageParts(self.parts, self.places[np.asarray(rows, dtype=np.int64)])


def as_source(value: Any, root: str = "") -> Any:
    """What a cell of a column stands for."""
    if isinstance(value, dict):
        if "crc" in value:
            return ZipMember(**value)
        if "offset" in value:
            return TarMember(**value)
        value = value["path"] if value["bytes"] is None else value["bytes"]
    if is_url(value):
        return RemoteImage(value)
    if isinstance(value, str) and root:
        return os.path.join(root, value)
    return b"" if value is None else value  # no image: an ImageError where it is opened
