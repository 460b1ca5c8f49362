"""What a bulk run has done, as it goes: rows are added to a file and never changed.

The captions of a batch are in the journal, on the disk, before anything else is written with them.
A line that was cut off by a crash is as if it had not been written.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from captionkit.bulk.digests import DigestMap
from captionkit.bulk.item import digest, displayed
from captionkit.bulk.rows import Row, is_whole

_DONE, _FAILED = 1, 2


class Journal:
    """The journal in a file, read when it is opened.

    settings: those of the run that the file belongs to; None for a new file. Rows are
    {"image", "caption", ...} or {"image", "failed"}; images are named by their keys.
    """

    def __init__(self, path: Path):
        self.path = path
        self.settings: dict[str, Any] | None = None
        self._states = DigestMap()
        self.failures = 0  # rows, of images that may have a caption by now
        self._end = 0  # of the last whole line
        self._applied = 0  # up to here the captions have gone where they belong
        self._file: Any = None
        self._reader: Any = None
        for row, end in self._lines(0):
            self._take(row, end)
        self._warn_of_damage()

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start anew with other settings; the earlier journal is kept beside it as previous."""
        self.close()
        if self.path.exists():
            os.replace(self.path, self.path.with_name("previous.jsonl"))
        self.forget()
        self._end = self._applied = 0
        self.add([{"settings": dict(settings)}])

    def forget(self) -> None:
        """Take no image for done or failed."""
        self._states = DigestMap()
        self.failures = 0

    def is_done(self, known: bytes) -> bool:
        """Whether the last row of the image with this digest is a caption."""
        return self._states.get(known) == _DONE

    def has_failed(self, known: bytes) -> bool:
        """Whether the last row of the image with this digest is a failure."""
        return self._states.get(known) == _FAILED

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows durably. After an OSError those rows are not in the journal."""
        rows = list(rows)
        content = b"".join(map(_line, rows))
        if self._file is None:
            # without a buffer, which would keep what the disk has no room for
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
            self._file.truncate(self._end)
        left = memoryview(content)
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            self.close()  # opened again it is cut to its whole lines
            raise
        end = self._end + len(content)
        for row in rows:
            self._take(row, end)

    def applied(self) -> None:
        """Note that every caption so far has gone where it belongs."""
        if self._applied < self._end:
            self.add([{"applied": True}])

    def pending(self) -> Iterator[Row]:
        """The rows since the last `applied`."""
        return (row for row, _ in self._lines(self._applied) if "image" in row)

    def rows(self) -> Iterator[Row]:
        """All rows of images, the earliest first; a later row of an image replaces the earlier."""
        return (row for row, _ in self._lines(0) if "image" in row)

    def places(self) -> DigestMap:
        """Where in the file the row of each pending caption starts; -1: it failed after all."""
        found = DigestMap()
        start = self._applied
        for row, end in self._lines(start):
            if "image" in row:
                found.put(digest(row["image"]), start if "caption" in row else -1)
            start = end
        return found

    def pending_captions(self, places: DigestMap) -> Iterator[Row]:
        """The pending captions that no later row replaces; `places` is what `places()` gave."""
        start = self._applied
        for row, end in self._lines(start):
            if "caption" in row and places.get(digest(row["image"])) == start:
                yield row
            start = end

    def row_at(self, place: int) -> Row:
        """The row that starts there."""
        if self._reader is None:
            self._reader = open(self.path, "rb")  # noqa: SIM115 (closed by close)
        self._reader.seek(place)
        return json.loads(self._reader.readline())

    def close(self) -> None:
        """Close the file."""
        for file in (self._file, self._reader):
            if file is not None:
                file.close()
        self._file = self._reader = None

    def _take(self, row: Row, end: int) -> None:
        if "image" in row:
            self.failures += "failed" in row
            self._states.put(digest(row["image"]), _FAILED if "failed" in row else _DONE)
        elif "applied" in row:
            self._applied = end
        elif "settings" in row:
            self.settings = row["settings"]
        self._end = end

    def _lines(self, start: int) -> Iterator[tuple[Row, int]]:
        """(row, where it ends) from a place on, up to the first line that is not whole."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(start)
            end = start
            for line in file:
                row = _parsed(line)
                if row is None:
                    return
                end += len(line)
                yield row, end

    def _warn_of_damage(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._end)
            lost = sum(1 for _ in file)
        if lost > 1:  # one is a line that was being written
            warnings.warn(
                f"{displayed(str(self.path))} is damaged: {lost:,} lines of it are lost, and the "
                "images in them are captioned again.",
                stacklevel=4,
            )


def _line(row: Row) -> bytes:
    # names that are not UTF-8 hold lone surrogates, which JSON can escape
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _parsed(line: bytes) -> Row | None:
    """The row of a line: None for one that is not whole, empty for one that is none of ours."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    if "image" in row:
        return row if is_whole(row) else {}
    return row if "applied" in row or isinstance(row.get("settings"), dict) else {}
