"""Rows of captions as JSON lines, csv or Parquet: read and written a few at a time."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from captionkit.bulk.item import displayed
from captionkit.bulk.rows import Row
from captionkit.errors import DataError, first_line
from captionkit.printable import csv_cell, from_csv_cell

_AT_ONCE = 1000  # rows


def read_table(path: Path, kind: str) -> Iterator[Row]:
    """The rows of a file of `kind` "jsonl", "metadata", "csv" or "parquet". Raises DataError."""
    try:
        if kind == "csv":
            yield from _read_csv(path)
        elif kind == "parquet":
            yield from _read_parquet(path)
        else:
            yield from _read_jsonl(path)
    except OSError as error:
        raise DataError(f"Cannot read {displayed(str(path))}: {first_line(error)}.") from None


def column_names(path: Path, kind: str) -> list[str]:
    """The columns of a file; of JSON lines those of the first. Raises DataError."""
    if kind == "parquet":
        return list(_parquet_schema(path).names)
    return list(next(read_table(path, kind), {}))


def write_table(
    file: BinaryIO, kind: str, rows: Iterable[Row], names: Sequence[str], base: Path | None
) -> None:
    """Write rows. names: the columns, in order; base: a Parquet file whose schema is kept."""
    if kind == "csv":
        _write_csv(file, rows, names)
    elif kind == "parquet":
        _write_parquet(file, rows, names, base)
    else:
        for row in rows:
            # names that are not UTF-8 hold lone surrogates, which JSON can escape
            text = json.dumps(row, ensure_ascii=False)
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")


# ---- JSON lines --------------------------------------------------------------------------------


def _read_jsonl(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except (ValueError, RecursionError) as error:
                raise _not_valid(path, f"line {number}: {error}") from None
            if not isinstance(row, dict):
                raise _not_valid(path, f"line {number}: expected an object, found {row!r:.80}")
            yield row


# ---- csv ---------------------------------------------------------------------------------------


def _read_csv(path: Path) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for fields in reader:
                if fields and len(fields) != len(header):
                    raise _not_valid(
                        path,
                        f"line {reader.line_num}: {len(fields)} fields, and the header has "
                        f"{len(header)}",
                    )
                if fields:
                    yield dict(zip(header, map(from_csv_cell, fields), strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise _not_valid(path, f"line {reader.line_num}: {error}") from None


def _write_csv(file: BinaryIO, rows: Iterable[Row], names: Sequence[str]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([csv_cell(row.get(name)) for name in names])
    text.flush()
    text.detach()


# ---- Parquet -----------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_AT_ONCE):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise _not_valid(path, first_line(error)) from None


def _parquet_schema(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_schema(path)
    except pyarrow.ArrowException as error:
        raise _not_valid(path, first_line(error)) from None


def _write_parquet(
    file: BinaryIO, rows: Iterable[Row], names: Sequence[str], base: Path | None
) -> None:
    import pyarrow
    import pyarrow.parquet

    known = _parquet_schema(base) if base is not None else pyarrow.schema([])
    scored = pyarrow.struct([("caption", pyarrow.string()), ("score", pyarrow.float64())])
    likely = pyarrow.struct([("token", pyarrow.string()), ("probability", pyarrow.float64())])
    kinds = {
        "score": pyarrow.float64(),
        "alternatives": pyarrow.list_(scored),
        "token_probabilities": pyarrow.list_(likely),
    }
    schema = pyarrow.schema(
        known.field(name)
        if name in known.names
        else pyarrow.field(name, kinds.get(name, pyarrow.string()))
        for name in names
    )
    remaining = iter(rows)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while some := list(itertools.islice(remaining, _AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))


def _not_valid(path: Path, what: str) -> DataError:
    return DataError(
        f"{displayed(str(path))} is there already and cannot be read ({what}). Nothing in it was "
        "changed: repair it, take it away, or choose another output."
    )
