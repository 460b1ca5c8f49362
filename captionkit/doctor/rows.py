"""Rows of a csv or JSON file, read on past what is wrong with some of them."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captionkit.data import columns
from captionkit.data.fetch import fetch, is_url
from captionkit.data.paths import below, spellings
from captionkit.data.tables import CSV_ENDINGS
from captionkit.doctor.listing import Entry, Listing
from captionkit.errors import DataError
from captionkit.recipe import DataConfig


def list_table(file: Path, folder: Path, split: str, config: DataConfig, listing: Listing) -> None:
    """Add the images that a metadata file lists; their paths start at `folder`.

    Rows that repeat an image are taken together, as in training.
    """
    captions: dict[str, list[str]] = {}
    image_column = caption_column = ""
    roots = spellings(folder)
    for where, row in _rows(file, listing):
        if not image_column:
            try:
                image_column = columns.image_column(list(row), config.image_column, str(file))
                caption_column = columns.caption_column(list(row), config.caption_column, str(file))
            except DataError as error:
                listing.add("load", split, str(error))
                return
        path = _path(row.get(image_column), image_column, roots, where, config, listing)
        if path is None:
            continue
        texts = captions.setdefault(path, [])
        given = row.get(caption_column)
        given = [given] if isinstance(given, str) else given
        if given is None:
            listing.add("bad_row", where, f"there is no {caption_column!r}")
        elif not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            listing.add(
                "bad_row", where, f"{caption_column!r} should be text or a list of text, found "
                f"{given!r:.80}",
            )  # fmt: skip
        else:
            texts += [text.strip() for text in given]
    for path, texts in captions.items():
        # an absolute path stays what it is
        source = functools.partial(fetch, path) if is_url(path) else str(folder / path)
        listing.entries.append(Entry(split, path, tuple(texts), source))


def _path(
    value: Any,
    column: str,
    roots: Sequence[str],
    where: str,
    config: DataConfig,
    listing: Listing,
) -> str | None:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        listing.add("bad_row", where, f"{column!r} should be a path, found {value!r:.80}")
        return None
    if is_url(value):
        if not config.allow_urls:
            listing.add("url", where, value)
        return value if config.allow_urls else None
    path = below(value, roots)
    if path is None and config.allow_outside_paths:
        return (Path(roots[0]) / value).as_posix()
    if path is None:
        listing.add("outside", where, value)
    return path


def _rows(file: Path, listing: Listing) -> Iterator[tuple[str, dict[str, Any]]]:
    text = _text(file, listing)
    if file.suffix.lower() in CSV_ENDINGS:
        yield from _csv_rows(text, file, listing)
    elif text.lstrip().startswith("["):
        try:
            objects = json.loads(text)
        except (ValueError, RecursionError) as error:
            listing.add("bad_row", str(file), f"not valid JSON ({error})")
            return
        for number, row in enumerate(objects, start=1):
            yield from _object(row, f"{file}, item {number}", listing)
    else:
        # not splitlines(): JSON text may hold U+2028 and its like as they are
        for number, line in enumerate(text.split("\n"), start=1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                yield from _object(json.loads(line), where, listing)
            except (ValueError, RecursionError) as error:
                listing.add("bad_row", where, f"not valid JSON ({error})")


def _text(file: Path, listing: Listing) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        for number, line in enumerate(content.split(b"\n"), start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                listing.add("bad_encoding", f"{file}, line {number}", _around(line, error.start))
        return content.decode("utf-8-sig", "ignore")


def _around(line: bytes, start: int) -> str:
    return f"byte 0x{line[start]:02x} in {ascii(line[max(0, start - 12) : start + 12])[1:]}"


def _csv_rows(text: str, file: Path, listing: Listing) -> Iterator[tuple[str, dict[str, Any]]]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    # strict: an unclosed quote would otherwise swallow the rest of the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        before = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"{file}, lines {before + 1} to {reader.line_num}"
            listing.add("bad_row", where, f"not valid csv ({error})")
            return
        where = f"{file}, line {reader.line_num}"
        if header is None:
            header = fields
        elif fields and len(fields) != len(header):
            listing.add(
                "bad_row", where, f"{len(fields)} fields, but the header has {len(header)}; "
                "captions with commas belong in quotes",
            )  # fmt: skip
        elif fields:
            yield where, dict(zip(header, fields, strict=True))


def _object(row: Any, where: str, listing: Listing) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(row, dict):
        yield where, row
    else:
        listing.add("bad_row", where, f"expected an object, found {type(row).__name__}")
