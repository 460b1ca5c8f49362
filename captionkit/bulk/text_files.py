"""Captions in .txt files, beside their images as image-generation trainers keep them, or apart."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from captionkit.bulk.atomic import replacing, settle
from captionkit.bulk.config import BulkConfig
from captionkit.bulk.item import Item, displayed
from captionkit.bulk.journal import Journal
from captionkit.bulk.place import Place
from captionkit.bulk.rows import Row, caption_row, failure_row
from captionkit.bulk.wording import decoded, kept_caption
from captionkit.errors import DataError
from captionkit.types import Caption

# what is wrong with one file; anything else, such as a full disk, stops the run
_OF_ONE_FILE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR,
    errno.ENOENT, errno.ELOOP,
}  # fmt: skip


class TextFiles:
    """Writes, reads and replaces the .txt of each image."""

    def __init__(self, place: Place, config: BulkConfig):
        self.place = place
        self.config = config

    def look(self) -> None:
        """Nothing is remembered of the files."""

    def claim(self, item: Item) -> str:
        """The path of the .txt: two images of one name, but for the ending, have the same."""
        return self._path(item)

    def problem(self, item: Item, key: str) -> str | None:
        """Why the image can have no .txt, if so."""
        if item.file is None and self.place.output is None:
            return "it is no file of its own that a .txt could lie beside; --output names a folder"
        if ".." in item.name.split("/") and self.place.output is not None:
            return "its name leads out of the output folder"
        return None

    def has_caption(self, item: Item, key: str) -> bool:
        """Whether there is a .txt with anything in it."""
        try:
            return os.stat(self._path(item)).st_size > 0
        except (OSError, ValueError):
            return False

    def row(self, item: Item, key: str, captions: Sequence[Caption]) -> Row | None:
        """What to keep, given what the .txt holds now; None where it is to stay as it is."""
        path = Path(self._path(item))
        try:
            before = _read(path)
        except DataError as error:
            return failure_row(key, f"{path.name}: {error}")
        if before is not None and before.strip() and self.config.existing in (None, "skip"):
            return None
        text = kept_caption(captions[0].text, before, self.config)
        row = caption_row(key, captions, text, before)
        if self.place.output is not None:
            row["file"] = str(path.relative_to(self.place.output))
        return row

    def apply(self, rows: Iterable[Row]) -> list[Row]:
        """Write the files of these rows; returns a failure for each that cannot be written.

        A file that is neither as it was nor as it is to be was changed by someone else meanwhile,
        and keeps that.
        """
        failures, folders = [], set()
        for row in rows:
            if "caption" not in row or (self.place.output is not None and "file" not in row):
                continue
            path = self._path_of_row(row)
            try:
                current = _read(path)
                if current not in (None, "", row.get("before"), row["caption"] + "\n"):
                    continue
                if self.place.output is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                if current != row["caption"] + "\n":
                    with replacing(path, str(self.place.state)) as file:
                        file.write(f"{row['caption']}\n".encode())
                folders.add(path.parent)
            except DataError as error:
                failures.append(failure_row(row["image"], f"{path.name}: {error}"))
            except OSError as error:
                if error.errno not in _OF_ONE_FILE:
                    raise
                reason = f"cannot write {displayed(str(path))}: {error.strerror}"
                failures.append(failure_row(row["image"], reason))
        settle(folders)
        return failures

    def finish(self, journal: Journal) -> None:
        """Write what a killed run had in its journal and not in its files."""
        failures = self.apply(journal.pending())
        if failures:
            journal.add(failures)
        journal.applied()

    def _path(self, item: Item) -> str:
        if self.place.output is not None:
            return os.path.join(self.place.output, f"{os.path.splitext(item.name)[0]}.txt")
        return f"{os.path.splitext(item.where)[0]}.txt"

    def _path_of_row(self, row: Row) -> Path:
        if self.place.output is not None:
            return self.place.output / row["file"]
        return Path(os.path.splitext(self.place.home / row["image"])[0] + ".txt")


def _read(path: Path) -> str | None:
    try:
        return decoded(path.read_bytes())
    except FileNotFoundError:
        return None
