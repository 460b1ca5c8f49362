"""What a source lists: images with their captions, and what is wrong with the lists themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from captionkit.doctor.findings import Item, printable

if TYPE_CHECKING:
    from captionkit.types import ImageSource

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Entry:
    """One image: its split and id, its captions as they stand, and a path or what gives bytes."""

    split: str
    image_id: str
    captions: tuple[str, ...]
    source: str | Callable[[], ImageSource]


@dataclass
class Listing:
    """All images of a dataset, and cases of what was wrong with its files, by kind.

    ids_are_paths: they start at the folder of the split, so two splits may share them.
    """

    name: str
    entries: list[Entry] = field(default_factory=list)
    cases: defaultdict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    remarks: list[str] = field(default_factory=list)
    ids_are_paths: bool = False

    def add(self, kind: str, name: str, detail: str = "") -> None:
        """Take note of one case."""
        self.cases[kind].append(Item((printable(name),), printable(detail)))

    def names(self) -> list[str]:
        """How each image is called; with its split where there are several."""
        several = len({entry.split for entry in self.entries}) > 1
        return [
            printable(f"{entry.split}: {entry.image_id}" if several else entry.image_id)
            for entry in self.entries
        ]
