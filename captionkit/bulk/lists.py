"""What a run leaves to look at: the images that failed, and the captions to review."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from captionkit.bulk.atomic import replacing
from captionkit.bulk.item import digest
from captionkit.bulk.journal import Journal
from captionkit.bulk.place import Place
from captionkit.bulk.rows import Row
from captionkit.bulk.table_rows import write_table


def write_failed(journal: Journal, place: Place) -> None:
    """List the images that failed, with the reasons; without any there is no file."""
    failed = (row for row in journal.rows() if _last(row, journal)) if journal.failures else ()
    reasons = {row["image"]: row["failed"] for row in failed}
    rows = [{"image": image, "reason": reason} for image, reason in reasons.items()]
    _write(place.failed, rows, place)


def write_review(journal: Journal, place: Place, below: float) -> int:
    """List the captions with a score below a limit, worst first; returns their number.

    A score that is not a number comes before all. Without any there is no file.
    """
    doubtful: dict[bytes, Row] = {}
    for row in journal.rows():
        doubtful.pop(digest(row["image"]), None)
        if "caption" in row and (row["score"] is None or row["score"] < below):
            doubtful[digest(row["image"])] = row
    worst_first = sorted(
        doubtful.values(), key=lambda row: -float("inf") if row["score"] is None else row["score"]
    )
    names = ("image", "caption", "score")
    _write(place.review, [{name: row[name] for name in names} for row in worst_first], place)
    return len(worst_first)


def _last(row: Row, journal: Journal) -> bool:
    return "failed" in row and journal.has_failed(digest(row["image"]))


def _write(path: Path, rows: Sequence[Row], place: Place) -> None:
    if not rows:
        path.unlink(missing_ok=True)
        return
    with replacing(path, str(place.state)) as file:
        write_table(file, "jsonl", rows, (), None)
