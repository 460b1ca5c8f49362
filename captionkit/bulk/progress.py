"""The progress bar of a bulk run."""

from __future__ import annotations

import sys

from captionkit.bulk.item import displayed, where_of
from captionkit.bulk.place import Place
from captionkit.bulk.rows import Row

_NAMED = 10  # failures on the screen; the file has them all


class BulkProgress:
    """Images done, speed and time left, and the first images that failed by name."""

    def __init__(self, total: int):
        from tqdm import tqdm

        quiet = not sys.stderr.isatty()
        self.failed = 0
        self.bar = tqdm(
            total=total, unit="image", desc="captioning", dynamic_ncols=True,
            mininterval=10 if quiet else 0.2, file=sys.stderr,
        )  # fmt: skip

    def advance(self, count: int) -> None:
        """So many more images are through."""
        self.bar.update(count)

    def failures(self, rows: list[Row], place: Place) -> None:
        """Name the images that failed."""
        for row in rows:
            self.failed += 1
            where = where_of(row["image"], str(place.home))
            if self.failed <= _NAMED:
                self.say(f"failed: {displayed(where)}: {row['failed']}")
            elif self.failed == _NAMED + 1:
                self.say(f"failed: more images; {displayed(str(place.failed))} will list them all")

    def say(self, line: str) -> None:
        """A line above the bar."""
        self.bar.write(line, file=sys.stderr)

    def __enter__(self) -> BulkProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
