"""Rows of a csv, JSON-lines or JSON file, with the line that each came from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captionkit.errors import DataError

CSV_ENDINGS = (".csv", ".tsv")
JSON_ENDINGS = (".jsonl", ".json", ".ndjson")


def read_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) for each row of a file, read by its ending.

    UTF-8, with or without a byte-order mark. A `.json` file may hold JSON lines or one list of
    objects (then the number is the place in the list). Raises DataError, with the line.
    """
    text = read_text(file)
    if file.suffix.lower() in CSV_ENDINGS:
        return csv_rows(text, file)
    if text.lstrip().startswith("["):
        return _json_list(text, file)
    return _json_lines(text, file)


def read_text(file: Path) -> str:
    """A file of UTF-8, with or without a byte-order mark. Raises DataError, with the line."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}). "
            "Save the file with UTF-8 encoding."
        ) from None


def csv_rows(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a csv or tsv file with the numbers of their lines. Raises DataError."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    # strict: an unclosed quote would otherwise swallow the rest of the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{file}: two columns have the same name: {', '.join(header)}.")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{file}, line {reader.line_num}: {len(fields)} fields, but the header has "
                    f"{len(header)} ({', '.join(header)}). Put captions with commas in quotes."
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not valid csv ({error}).") from None


def _json_lines(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # not splitlines(): JSON text may hold U+2028 and its like as they are
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: not valid JSON ({error}).") from None
        yield number, _object(row, file, f"line {number}")


def _json_list(text: str, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({error}).") from None
    for number, row in enumerate(rows, start=1):
        yield number, _object(row, file, f"item {number}")


def _object(row: Any, file: Path, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f'{file}, {where}: expected an object such as {{"image": "a.jpg", "caption": "..."}}, '
            f"found {type(row).__name__}."
        )
    return row
