"""Reading predictions and references from the files that captioning tools write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captionkit.data.tables import csv_rows
from captionkit.errors import DataError

# The first of these that a row has names the image.
ID_COLUMNS = ("image_id", "id", "image", "file_name", "image_path", "path", "filename", "url")
PREDICTION_COLUMNS = ("prediction", "caption", "text", "generated", "hypothesis")
REFERENCE_COLUMNS = (
    *("references", "reference", "captions", "caption", "sentences", "sentence", "text"),
)
_FORMATS = ".json (COCO), .jsonl, .csv, .tsv or .txt (a caption a line)"


@dataclass
class CaptionTable:
    """The captions of images, in the order of the file.

    captions: by image id (where the file has none, by position). positional: whether the ids are
    positions. aliases: ids by other names of images: their paths in the file, and file names.
    """

    path: Path
    captions: dict[str, list[str]] = field(default_factory=dict)
    positional: bool = False
    aliases: dict[str, set[str]] = field(default_factory=dict)

    def name(self, path: str, image_id: str) -> None:
        """Take note that an image has this path."""
        for name in (path, Path(path).name):
            self.aliases.setdefault(name, set()).add(image_id)

    def find(self, name: str) -> str | None:
        """The id of an image that may be named by its file; None where there is none.

        Raises DataError where the file's name alone does not say which one it is.
        """
        if name in self.captions:
            return name
        found = self.aliases.get(name) or self.aliases.get(Path(name).name, set())
        found = {image_id for image_id in found if image_id in self.captions}
        if len(found) > 1:
            some = ", ".join(sorted(found)[:3])
            raise DataError(
                f"{name!r} may be any of {len(found)} images of {self.path} ({some}): their files "
                "have the same name. Name images by their ids."
            )
        return next(iter(found), None)


def read_predictions(path: Path) -> CaptionTable:
    """One caption an image. Raises `DataError` for other files and for two of the same image."""
    table = _read(path, PREDICTION_COLUMNS)
    double = [name for name, captions in table.captions.items() if len(captions) != 1]
    if double:
        raise DataError(
            f"{path} has {len(table.captions[double[0]])} captions of the image {double[0]!r}"
            f"{_and_others(double)}: a prediction is one caption an image."
        )
    return table


def read_references(path: Path) -> CaptionTable:
    """All captions of each image: many a row, or many rows an image. Raises `DataError`."""
    return _read(path, REFERENCE_COLUMNS)


def has_references(path: Path) -> bool:
    """Whether the rows of a file of predictions carry their references with them."""
    row = next(iter(_rows(path)), {})
    return "references" in row or "reference" in row


def _read(path: Path, columns: Sequence[str]) -> CaptionTable:
    table = CaptionTable(path)
    content = _json(path) if path.suffix.lower() == ".json" else None
    if isinstance(content, Mapping) and "annotations" in content:
        images = content.get("images")
        for image in images if isinstance(images, list) else ():
            if isinstance(image, Mapping) and {"id", "file_name"} <= image.keys():
                table.name(str(image["file_name"]), str(image["id"]))
    rows = list(_rows(path, content))
    table.positional = bool(rows) and not any(name in rows[0] for name in ID_COLUMNS)
    for number, row in enumerate(rows, 1):
        image_id = str(number - 1) if table.positional else _image_id(row, path, number)
        captions = _captions(row, columns, path, number)
        table.captions.setdefault(image_id, []).extend(captions)
    if not rows:
        raise DataError(f"There are no captions in {path}.")
    return table


def _rows(path: Path, content: Any = None) -> Iterable[Mapping[str, Any]]:
    """The rows of a file of any of the formats, as mappings."""
    ending = path.suffix.lower()
    if ending == ".json":
        content = _json(path) if content is None else content
        if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
            content = content["annotations"]
        elif isinstance(content, Mapping):
            content = [{"image_id": key, "caption": value} for key, value in content.items()]
        if not isinstance(content, list):
            raise DataError(
                f"{path} should hold a list of results or an object with `annotations`, as COCO's "
                f"files do; found {type(content).__name__}."
            )
        rows = content
    elif ending in (".jsonl", ".ndjson"):
        rows = [_parsed(line, path, i) for i, line in enumerate(_lines(path), 1) if line.strip()]
    elif ending in (".csv", ".tsv"):
        rows = [row for _, row in csv_rows(_text(path), path)]
    elif ending == ".txt":
        rows = [{"caption": line} for line in _lines(path)]
    else:
        raise DataError(f"{path} is none of the kinds that can be read: {_FORMATS}.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"Row {number} of {path} should be an object with an image id and a caption, "
                f"found {type(row).__name__}."
            )
    return rows


def _image_id(row: Mapping[str, Any], path: Path, number: int) -> str:
    for name in ID_COLUMNS:
        if row.get(name) not in (None, ""):
            return str(row[name])
    raise DataError(f"Row {number} of {path} does not say which image it is of.")


def _captions(row: Mapping[str, Any], columns: Sequence[str], path: Path, number: int) -> list[str]:
    name = next((name for name in columns if row.get(name) is not None), None)
    if name is None:
        raise DataError(
            f"Row {number} of {path} has no caption: expected one of the columns "
            f"{', '.join(columns)}, found {', '.join(map(str, row)) or 'none'}."
        )
    value = row[name]
    if isinstance(value, str) and value.startswith("["):
        value = _list_in_a_cell(value)
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise DataError(
            f"Row {number} of {path}: {name!r} should be text or a list of texts, found {value!r}."
        )
    return captions


def _list_in_a_cell(text: str) -> Any:
    """A csv cell may hold a JSON list; a caption may start with a bracket too."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _lines(path: Path) -> list[str]:
    # not splitlines: a caption may hold any other of Unicode's line ends
    return _text(path).removesuffix("\n").split("\n")


def _json(path: Path) -> Any:
    return _parsed(_text(path), path, None)


def _parsed(text: str, path: Path, line: int | None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"Line {line} of {path}" if line else str(path)
        raise DataError(f"{where} is not valid JSON: {error}.") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8.") from None


def _and_others(names: Sequence[str]) -> str:
    return f" (and more of {len(names) - 1} other images)" if len(names) > 1 else ""
