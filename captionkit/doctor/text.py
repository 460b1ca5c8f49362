"""A diagnosis to read on a terminal: the most serious first, with what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from captionkit.doctor.findings import Diagnosis, Finding, Item
from captionkit.doctor.kinds import LEVELS
from captionkit.printable import printable

_HEADS = {
    "error": "ERRORS: these stop training, lose data or spoil an evaluation",
    "warning": "WARNINGS: look at these",
    "note": "NOTES: handled, or usual",
}
_WIDTH = 100


def as_text(diagnosis: Diagnosis, shown: int = 5) -> str:
    """The whole diagnosis, of each finding at most `shown` cases."""
    return "\n".join(printable(line) for line in _lines(diagnosis, shown))


def summary(diagnosis: Diagnosis) -> str:
    """How many images and captions there are, in one line."""
    images = sum(images for images, _ in diagnosis.splits.values())
    captions = sum(captions for _, captions in diagnosis.splits.values())
    text = f"{images:,} images, {captions:,} captions"
    if len(diagnosis.splits) > 1:
        parts = [f"{name} {images:,}" for name, (images, _) in diagnosis.splits.items()]
        text += f" ({', '.join(parts)})"
    return text


def verdict(diagnosis: Diagnosis) -> str:
    """The outcome in one line."""
    counts = {level: len(diagnosis.of(level)) for level in LEVELS}
    if not any(counts.values()):
        return "Nothing found."
    parts = [f"{n} kind{'s' * (n != 1)} of {level}" for level, n in counts.items() if n]
    return f"{', '.join(parts)}.{'' if counts['error'] else ' Nothing serious.'}"


def _lines(diagnosis: Diagnosis, shown: int) -> Iterator[str]:
    yield f"{diagnosis.dataset}: {summary(diagnosis)}"
    for level in LEVELS:
        found = diagnosis.of(level)
        if found:
            yield f"\n{_HEADS[level]}"
        for finding in found:
            yield from _finding(finding, shown)
    facts = dict(diagnosis.pictures)
    if diagnosis.tokens:
        facts = {"tokens": f"{diagnosis.tokens} ({diagnosis.tokens.model})", **facts}
    if facts:
        yield ""
    for name, value in facts.items():
        yield f"{name:<12}{value}"
    for remark in diagnosis.remarks:
        yield f"\n{textwrap.fill(remark, _WIDTH)}"
    yield f"\n{verdict(diagnosis)}"


def _finding(finding: Finding, shown: int) -> Iterator[str]:
    yield f"\n  {finding.title}: {finding.count}"
    yield textwrap.fill(finding.advice, _WIDTH, initial_indent="  -> ", subsequent_indent="     ")
    for item in finding.items[:shown]:
        yield f"     {_item(item)}"
    if len(finding.items) > shown:
        yield f"     ... and {len(finding.items) - shown:,} more"


def _item(item: Item) -> str:
    names = ", ".join(item.names[:4])
    if len(item.names) > 4:
        names += f", ... ({len(item.names):,} in all)"
    return f"{names}: {item.detail}" if item.detail else names
