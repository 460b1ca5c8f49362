"""Splits of COCO that text files list: an image id or a file name a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.data.arrow import listed
from captionkit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from captionkit.recipe import DataConfig


def list_files(config: DataConfig) -> dict[str, Path]:
    """The lists that the settings name, by split; none: COCO's own splits."""
    given = {
        "train": config.train_file, "validation": config.validation_file, "test": config.test_file,
    }  # fmt: skip
    return {split: Path(file) for split, file in given.items() if file is not None}


def read_lists(files: dict[str, Path], table: pa.Table, where: str) -> dict[str, list[int]]:
    """The rows of each split, in the order of its list.

    table: all images, with the columns image_id and path. Raises DataError for an image that is
    not among them, and for one that is in two lists.
    """
    ids = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
    names = {os.path.basename(path): row for row, path in enumerate(table["path"].to_pylist())}
    rows = {split: _rows(file, ids, names, where) for split, file in files.items()}
    splits = list(rows)
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            if both := set(rows[one]) & set(rows[other]):
                images = [table["image_id"][row].as_py() for row in sorted(both)]
                raise DataError(
                    f"Images that are both in {files[one]} and in {files[other]}: "
                    f"{listed(images)}. Take them out of one of the lists."
                )
    return rows


def _rows(file: Path, ids: dict[str, int], names: dict[str, int], where: str) -> list[int]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a list of images: {error}") from None
    rows: dict[int, None] = {}  # each once, in order
    unknown = []
    for line in lines:
        # some lists have the id behind the name
        first = next(iter(line.split()), "#")
        if first.startswith("#"):
            continue
        name = os.path.basename(first)
        row = names.get(name, ids.get(name.lstrip("0") if name.isdecimal() else name))
        if row is None:
            unknown.append(first)
        else:
            rows[row] = None
    if unknown:
        raise DataError(
            f"{file} names images that are not in {where}: {listed(unknown)}. Expected a text file "
            "with an image id or a file name of COCO a line."
        )
    if not rows:
        raise DataError(f"{file} names no image. Expected an image id or a file name a line.")
    return list(rows)
