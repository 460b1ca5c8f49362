"""Images that a file lists: a text file of paths, or a csv, jsonl or Parquet file with a column."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captionkit.bulk.item import Item, displayed
from captionkit.data import columns
from captionkit.data.images import is_url
from captionkit.data.tables import CSV_ENDINGS, JSON_ENDINGS, read_rows
from captionkit.errors import DataError, first_line

TABLE_ENDINGS = (*CSV_ENDINGS, *JSON_ENDINGS)
PARQUET_ENDINGS = (".parquet",)

_ROWS = 64  # of a Parquet file in memory at once; they may hold whole photos


def images_in_list(path: str) -> Iterator[Item]:
    """A path or URL a line; blank lines are passed over. Raises DataError."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                # names are bytes to the system: what is not UTF-8 is found all the same
                name = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n"))
                if name.strip():
                    yield _listed(name, path, f"line {number}")
    except OSError as error:
        raise DataError(f"Cannot read {displayed(path)}: {error.strerror}.") from None


def images_in_table(path: str, image_column: str | None) -> Iterator[Item]:
    """The image column of a csv, tsv, jsonl or json file. Raises DataError."""
    column = None
    for line, row in read_rows(Path(path)):
        if column is None:
            column = columns.image_column(list(row), image_column, displayed(path))
        yield _listed(row.get(column), path, f"line {line}")


def images_in_parquet(path: str, image_column: str | None, contents: bool) -> Iterator[Item]:
    """The image column of a Parquet file: paths, bytes, or {bytes, path} as `datasets` writes.

    Images inside the file are called `file.parquet::row`. contents: read them; without, the file is
    only counted through. Raises DataError.
    """
    import pyarrow
    import pyarrow.parquet

    path = os.path.abspath(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            column = columns.image_column(names, image_column, displayed(path))
            kind = file.schema_arrow.field(column).type
            inside = pyarrow.types.is_struct(kind) or _is_binary(kind)
            if inside and not contents:
                for row in range(file.metadata.num_rows):
                    yield Item(f"{path}::{row}", f"{stem}/{row}", b"")
                return
            row = 0
            for batch in file.iter_batches(_ROWS, columns=[column]):
                for value in batch.column(0).to_pylist():
                    if inside:
                        yield _embedded(value, path, stem, row)
                    else:
                        yield _listed(value, path, f"row {row}")
                    row += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{displayed(path)} is not a Parquet file that can be read ({first_line(error)})."
        ) from None


def _is_binary(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _embedded(value: Any, path: str, stem: str, row: int) -> Item:
    content = value.get("bytes") if isinstance(value, dict) else value
    problem = None if isinstance(content, bytes) else "the row holds no image"
    return Item(f"{path}::{row}", f"{stem}/{row}", content or b"", problem)


def _listed(value: Any, path: str, place: str) -> Item:
    """A path as a file lists it: absolute, or relative to that file's folder, or to here."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        problem = f"expected the path of an image, found {value!r:.80}"
        return Item(f"{os.path.abspath(path)}, {place}", place, "", problem)
    if is_url(value):
        return Item(value, name_of_url(value), value)
    folder = os.path.dirname(os.path.abspath(path))
    beside = os.path.normpath(os.path.join(folder, value))
    here = os.path.abspath(value)
    where = here if not os.path.lexists(beside) and os.path.lexists(here) else beside
    name = os.path.relpath(where, folder)
    if name.startswith(".."):
        name = os.path.splitdrive(where)[1].lstrip("/")
    return Item(where, name, where)


def name_of_url(url: str) -> str:
    """Where the caption of an address goes in a folder: its host and path."""
    return url.split("://", 1)[1].split("?")[0].split("#")[0].strip("/")
