"""What an examination found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from captionkit.doctor.kinds import KINDS, Level
from captionkit.doctor.tokens import TokenCounts


@dataclass(frozen=True)
class Item:
    """One case of a finding.

    names: the images, rows or files, each with its split where there are several.
    detail: what was found. images: their places in the listing, for pictures of them.
    """

    names: tuple[str, ...]
    detail: str = ""
    images: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Finding:
    """All cases of one kind; `kind` is a key of `KINDS`."""

    kind: str
    items: tuple[Item, ...]

    @property
    def level(self) -> Level:
        """How serious it is: "error" stops training, loses data or spoils an evaluation."""
        return KINDS[self.kind].level

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return KINDS[self.kind].title

    @property
    def advice(self) -> str:
        """What to do."""
        return KINDS[self.kind].advice

    @property
    def count(self) -> str:
        """How many, of what: "3 images"."""
        one, many = KINDS[self.kind].units
        return f"{len(self.items):,} {one if len(self.items) == 1 else many}"


@dataclass(frozen=True)
class Diagnosis:
    """What `examine` returns.

    splits: images and captions by split. findings: the most serious first.
    tokens: counts under the model's tokenizer, where a model was named.
    pictures: formats, modes and sizes of what could be read, in words.
    remarks: what the examination could not look at.
    """

    dataset: str
    splits: dict[str, tuple[int, int]]
    findings: tuple[Finding, ...]
    tokens: TokenCounts | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def of(self, level: Level) -> tuple[Finding, ...]:
        """The findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    def passes(self, strict: bool = False) -> bool:
        """Whether there is no error; strict: and no warning."""
        return not (self.of("error") or (strict and self.of("warning")))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, every item with its names."""
        return {
            "dataset": self.dataset,
            "passes": self.passes(),
            "splits": {
                name: {"images": images, "captions": captions}
                for name, (images, captions) in self.splits.items()
            },
            "findings": [
                {
                    "kind": finding.kind,
                    "level": finding.level,
                    "count": len(finding.items),
                    "title": finding.title,
                    "advice": finding.advice,
                    "items": [
                        {"names": list(item.names), "detail": item.detail} for item in finding.items
                    ],
                }
                for finding in self.findings
            ],
            "tokens": self.tokens and self.tokens.to_dict(),
            "pictures": self.pictures,
            "remarks": list(self.remarks),
        }


def in_order(cases: Mapping[str, Iterable[Item]]) -> tuple[Finding, ...]:
    """Findings of the cases that there are, in the order of `KINDS`."""
    found = {kind: tuple(items) for kind, items in cases.items()}
    return tuple(Finding(kind, found[kind]) for kind in KINDS if found.get(kind))


def printable(text: str) -> str:
    """A name or caption on one line; what cannot be printed is escaped."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(c: str) -> str:
    if c.isprintable():
        return c
    # bytes of a file name that are not UTF-8 come as lone surrogates
    if 0xDC80 <= ord(c) <= 0xDCFF:
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode()
