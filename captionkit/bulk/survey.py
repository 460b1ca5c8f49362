"""What is to do: each image beside what earlier runs did and the captions that are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from captionkit.bulk.config import BulkConfig
from captionkit.bulk.digests import DigestMap
from captionkit.bulk.item import Item, digest, key_of
from captionkit.bulk.journal import Journal

_SHOWN = 3  # names


class Target(Protocol):
    """Where captions go, as far as a survey asks."""

    def claim(self, item: Item) -> str | None:
        """What no other image may share with it."""

    def problem(self, item: Item, key: str) -> str | None:
        """Why the image can have no caption there."""

    def has_caption(self, item: Item, key: str) -> bool:
        """Whether it has one."""


class Looked(NamedTuple):
    """One image and its state.

    todo: to be captioned. done: captioned by this run, before it was interrupted. kept: has a
    caption, which stays. failed: in an earlier run. bad: cannot be captioned, for the reason.
    """

    item: Item
    key: str
    state: Literal["todo", "done", "kept", "failed", "bad"]
    reason: str | None = None


@dataclass
class Survey:
    """How many images are in which state, and the first names of those to do."""

    todo: int = 0
    done: int = 0
    kept: int = 0
    failed: int = 0
    bad: int = 0
    first: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, looked: Iterable[Looked]) -> Survey:
        """Count through."""
        counts = dict.fromkeys(("todo", "done", "kept", "failed", "bad"), 0)
        first: list[str] = []
        for one in looked:
            counts[one.state] += 1
            if one.state == "todo" and len(first) < _SHOWN:
                first.append(one.key)
        return cls(**counts, first=first)


def look(
    items: Iterable[Item],
    home: str,
    target: Target,
    journal: Journal,
    pending: DigestMap,
    config: BulkConfig,
) -> Iterator[Looked]:
    """The state of each image, in order. The images of a run are split up here and nowhere else.

    pending: of the journal, the captions that are not yet where they belong.
    """
    claims = DigestMap()
    for item in items:
        key = key_of(item, home)
        known = digest(key)
        # an image that stopped an earlier run is to be read, not passed over
        if journal.has_failed(known) and not config.retry_failed and config.on_bad_image != "stop":
            yield Looked(item, key, "failed")
            continue
        if problem := item.problem or target.problem(item, key):
            yield Looked(item, key, "bad", problem)
            continue
        # what was captioned and then taken away is captioned again
        there = target.has_caption(item, key)
        done = journal.is_done(known) and (there or (pending.get(known) or -1) >= 0)
        claim = target.claim(item)
        if claim is not None and (done or not there or config.existing not in (None, "skip")):
            if digest(claim) in claims:
                reason = "an image of the same name, but for the ending, has that .txt"
                yield Looked(item, key, "bad", reason)
                continue
            claims.put(digest(claim))
        if done:
            yield Looked(item, key, "done")
        elif there and config.existing in (None, "skip"):
            yield Looked(item, key, "kept")
        else:
            yield Looked(item, key, "todo")
