"""A diagnosis as one HTML file, with pictures of what was found."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data.images import open_image
from captionkit.doctor.findings import Diagnosis, Finding
from captionkit.doctor.kinds import LEVELS, Level
from captionkit.doctor.listing import Entry, Listing
from captionkit.doctor.text import summary
from captionkit.errors import CaptionkitError
from captionkit.report.histograms import Histogram, histogram
from captionkit.report.render import render_page
from captionkit.report.thumbnails import data_uri

if TYPE_CHECKING:
    import PIL.Image

_FIRST = 8  # cases of a finding that are shown without being asked
_MOST_LINES = 500  # cases without a picture, of one finding
_MOST_OF_GROUP = 3  # pictures of one case
_SIDE, _QUALITY = 176, 60
_LEVELS = {
    "error": ("Errors", "These stop training, lose data or spoil an evaluation."),
    "warning": ("Warnings", "Look at these."),
    "note": ("Notes", "Handled by captionkit, or usual."),
}


@dataclass(frozen=True)
class Case:
    """One case on the page: `pictures` are (data URI or None, alternative text)."""

    names: tuple[str, ...]
    more_names: int
    detail: str
    pictures: tuple[tuple[str | None, str], ...]


@dataclass(frozen=True)
class Section:
    """One finding on the page; `hidden` counts the cases that there was no room for."""

    finding: Finding
    first: list[Case]
    rest: list[Case]
    hidden: int
    with_pictures: bool


def write_page(path: Path, diagnosis: Diagnosis, listing: Listing, limit: int = 2000) -> Path:
    """Write the page, with at most `limit` pictures. Raises OutputError."""
    pictures = _Pictures(listing.entries, diagnosis, limit)
    levels = []
    sections = len(diagnosis.findings)
    for level in LEVELS:
        found = []
        for finding in diagnosis.of(level):
            # each finding gets its share of the room, and what those before it left
            found.append(_section(finding, pictures, pictures.left // sections))
            sections -= 1
        if found:
            levels.append((level, *_LEVELS[level], found))
    context: dict[str, Any] = {
        "title": diagnosis.dataset,
        "kind": "Data",
        "lede": [summary(diagnosis)],
        "warnings": [],
        "problems": list(diagnosis.remarks),
        "gallery": {"cards": []},
        "levels": levels,
        "counts": _counts(diagnosis),
        "tokens": diagnosis.tokens,
        "lengths": _lengths(diagnosis),
        "pictures": list(diagnosis.pictures.items()),
        "splits": list(diagnosis.splits.items()),
    }
    return render_page("doctor.html.j2", path, context)


class _Pictures:
    """Small pictures of images, each made once; None for what cannot be read.

    left: how many may still be put on the page, the same ones again included.
    """

    def __init__(self, entries: Sequence[Entry], diagnosis: Diagnosis, limit: int):
        self.entries, self.left = entries, limit
        self.made: dict[int, str | None] = {}
        named = ("missing", "not_a_file", "no_permission", "empty_file", "unreadable", "truncated",
                 "bomb")  # fmt: skip
        self.unreadable = {
            i for f in diagnosis.findings if f.kind in named for item in f.items
            for i in item.images
        }  # fmt: skip

    def __getitem__(self, index: int) -> str | None:
        if index not in self.made and index not in self.unreadable:
            self.made[index] = self._made(self.entries[index])
        return self.made.get(index)

    def _made(self, entry: Entry) -> str | None:
        try:
            source: Any = entry.source() if callable(entry.source) else entry.source
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, of what is a finding here
                return data_uri(_with_room(open_image(source)), _SIDE, _QUALITY)
        except (CaptionkitError, OSError, ValueError):
            return None


def _with_room(picture: PIL.Image.Image) -> PIL.Image.Image:
    # a line of one pixel would be scaled to nothing; its middle can be seen
    width, height = picture.size
    side = 20 * min(width, height)
    if max(width, height) <= side:
        return picture
    left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
    return picture.crop((left, top, min(width, left + side), min(height, top + side)))


def _section(finding: Finding, pictures: _Pictures, room: int) -> Section:
    seen = any(i not in pictures.unreadable for item in finding.items for i in item.images)
    cases: list[Case] = []
    enough = pictures.left - room
    for item in finding.items:
        if (pictures.left <= enough and cases) if seen else len(cases) == _MOST_LINES:
            break
        shown = item.images[:_MOST_OF_GROUP] if seen else ()
        texts = [
            f"{item.names[n]}: {' | '.join(pictures.entries[i].captions[:1]) or 'no caption'}"
            for n, i in enumerate(shown)
        ]
        found = tuple((pictures[i], text) for i, text in zip(shown, texts, strict=True))
        case = Case(item.names[:6], max(0, len(item.names) - 6), item.detail, found)
        cases.append(case)
        pictures.left -= max(1, len(found)) if seen else 0
    hidden = len(finding.items) - len(cases)
    return Section(finding, cases[:_FIRST], cases[_FIRST:], hidden, seen)


def _counts(diagnosis: Diagnosis) -> list[tuple[Level, str, int, str]]:
    """(level, label, number of kinds, number of cases in words)."""
    rows: list[tuple[Level, str, int, str]] = []
    for level in LEVELS:
        found = diagnosis.of(level)
        cases = sum(len(finding.items) for finding in found)
        said = f"{cases:,} case{'s' * (cases != 1)}" if cases else "none"
        rows.append((level, _LEVELS[level][0], len(found), said))
    return rows


def _lengths(diagnosis: Diagnosis) -> Histogram | None:
    tokens = diagnosis.tokens
    if tokens is None or not tokens.lengths:
        return None
    values = [float(n) for n, count in sorted(tokens.lengths.items()) for _ in range(count)]
    return histogram("tokens", values, title="Tokens per caption", unit="captions", whole=True)
