"""Captions in one file: JSON lines, metadata.jsonl, csv or Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from captionkit.bulk.atomic import replacing, settle
from captionkit.bulk.config import BulkConfig
from captionkit.bulk.digests import DigestMap
from captionkit.bulk.item import Item, digest, displayed
from captionkit.bulk.journal import Journal
from captionkit.bulk.place import Place
from captionkit.bulk.rows import Row, caption_row
from captionkit.bulk.table_rows import column_names, read_table, write_table
from captionkit.bulk.wording import kept_caption
from captionkit.data.columns import CAPTION_COLUMNS, IMAGE_COLUMNS
from captionkit.data.images import is_url
from captionkit.data.paths import is_unicode
from captionkit.errors import DataError
from captionkit.types import Caption


class TableFile:
    """A file with a row an image, which is written anew, whole, from what it held and the journal.

    Rows of other images and further columns stay as they are. Raises DataError where a file is
    there that cannot be read.
    """

    def __init__(self, place: Place, config: BulkConfig):
        assert place.output is not None
        self.place = place
        self.path: Path = place.output
        self.config = config
        self.kind = config.kind
        self.present = DigestMap()  # the images that have a caption in the file
        self.before: dict[bytes, str] = {}  # those captions, where they are added to
        self._find_columns()

    def look(self) -> None:
        """Note which images have a caption in the file."""
        adding = self.config.existing in ("append", "prepend")
        self.present, self.before = DigestMap(), {}
        for number, row in enumerate(self._rows(), 1):
            text, known = row.get(self.caption), self._known(row)
            if text is not None and not isinstance(text, str):
                raise DataError(
                    f"{displayed(str(self.path))}, row {number}: {self.caption!r} should be text, "
                    f"found {text!r:.80}. Choose another output."
                )
            if known is not None and text and text.strip():
                self.present.put(known)
                if adding:
                    self.before[known] = text

    def claim(self, item: Item) -> None:
        """Every image has a row of its own."""

    def problem(self, item: Item, key: str) -> str | None:
        """Why the image can have no row, if so."""
        if self.kind == "metadata":
            if item.file is None:
                return "it is no file of its own, as metadata.jsonl expects"
            if os.path.isabs(key):
                return (
                    f"it lies outside of {displayed(str(self.place.home))}, where metadata.jsonl is"
                )
        if self.kind in ("csv", "parquet") and not is_unicode(key):
            return "its name is not UTF-8, which only jsonl can hold; rename it"
        return None

    def has_caption(self, item: Item, key: str) -> bool:
        """Whether the image has a caption in the file."""
        return digest(key) in self.present

    def row(self, item: Item, key: str, captions: Sequence[Caption]) -> Row | None:
        """What to keep."""
        before = self.before.get(digest(key))
        text = kept_caption(captions[0].text, before, self.config)
        row = caption_row(key, captions, text, before)
        # a run that goes on with another choice still knows what this caption is for
        return {**row, "overwrite": True} if self.config.existing == "overwrite" else row

    def apply(self, rows: Iterable[Row]) -> list[Row]:
        """Rows stay in the journal until the end."""
        return []

    def finish(self, journal: Journal) -> None:
        """Write the file anew with the captions that it does not have yet."""
        if next(journal.pending(), None) is None:
            return
        places = journal.places()
        exists = self.path.exists()
        columns = list(self.columns)
        if self.kind != "metadata":
            extra = ("score", "alternatives", "token_probabilities")
            wanted = {"score"} | {name for row in journal.pending() for name in row}
            columns += [name for name in extra if name in wanted and name not in columns]
        with replacing(self.path, str(self.place.state)) as file:
            write_table(
                file, self.kind, self._merged(journal, places), columns,
                self.path if exists else None,
            )  # fmt: skip
        settle({self.path.parent})
        journal.applied()

    def _merged(self, journal: Journal, places: DigestMap) -> Iterator[Row]:
        """The file's rows with their new captions, then the new rows in the journal's order."""
        merged = DigestMap()
        for row in self._rows():
            known = self._known(row)
            place = None if known is None else places.get(known)
            if known is not None and place is not None and place >= 0 and known not in merged:
                merged.put(known)
                row = self._with_caption(row, journal.row_at(place))
            yield row
        for row in journal.pending_captions(places):
            if digest(row["image"]) not in merged:
                yield self._with_caption({self.image: self._image_cell(row["image"])}, row)

    def _with_caption(self, row: Row, new: Row) -> Row:
        current = row.get(self.caption)
        expected = (None, "", new.get("before"), new["caption"])
        if current not in expected and "overwrite" not in new:
            return row  # changed by someone else meanwhile
        row = {**row, self.caption: new["caption"]}
        if self.kind != "metadata":
            for name in ("score", "alternatives", "token_probabilities"):
                row.pop(name, None)
                if name in new:
                    row[name] = new[name]
        return row

    # ---- what is there -------------------------------------------------------------------------

    def _find_columns(self) -> None:
        names = column_names(self.path, self.kind) if self.path.exists() else []
        metadata = self.kind == "metadata"
        image, caption = ("file_name", "text") if metadata else ("image", "caption")
        chosen = (self.config.image_column,) if self.config.image_column else ()
        usual = (*chosen, image, *IMAGE_COLUMNS)
        if names and not any(name in names for name in usual):
            raise DataError(
                f"{displayed(str(self.path))} is there already and has no column with the images "
                f"(columns: {', '.join(names)}). Take it away, or choose another output."
            )
        self.image = next((name for name in usual if name in names), image)
        self.caption = next(
            (name for name in (caption, *CAPTION_COLUMNS) if name in names), caption
        )
        self.columns = names + [n for n in (self.image, self.caption) if n not in names]

    def _rows(self) -> Iterator[Row]:
        return read_table(self.path, self.kind) if self.path.exists() else iter(())

    def _known(self, row: Row) -> bytes | None:
        """The digest of a row's image."""
        image: Any = row.get(self.image)
        if not isinstance(image, str) or not image:
            return None
        if is_url(image):
            return digest(image)
        home = str(self.place.home)
        path = os.path.normpath(os.path.join(home, image))
        return digest(path.removeprefix(home.rstrip("/") + "/"))

    def _image_cell(self, key: str) -> str:
        # a path that a spreadsheet would take for a formula stays a path
        return f"./{key}" if self.kind == "csv" and key[0] in "=+-@\t\r'" else key
