"""A map from digests to numbers that stays small: a million entries take some 25 MB."""

from __future__ import annotations

import numpy

_RECENT = 1024  # entries in a dict, which takes ten times their room, before they are sorted in


class DigestMap:
    """Like a dict from the 16 bytes of `digest()` to numbers; as a set, where all are 0."""

    def __init__(self) -> None:
        self._digests = numpy.empty(0, "S16")  # sorted
        self._numbers = numpy.empty(0, numpy.int64)
        self._recent: dict[bytes, int] = {}

    def __len__(self) -> int:
        self._sort_in()
        return len(self._digests)

    def __contains__(self, known: object) -> bool:
        return isinstance(known, bytes) and self.get(known) is not None

    def put(self, known: bytes, number: int = 0) -> None:
        """Set the number of a digest."""
        self._recent[known] = number
        if len(self._recent) >= _RECENT:
            self._sort_in()

    def get(self, known: bytes) -> int | None:
        """The number of a digest, or None."""
        if known in self._recent:
            return self._recent[known]
        place = self._digests.searchsorted(known)
        # numpy hands such bytes out without the zeros at their end
        there = place < len(self._digests) and self._digests[place].ljust(16, b"\0") == known
        return int(self._numbers[place]) if there else None

    def _sort_in(self) -> None:
        if not self._recent:
            return
        digests = numpy.array(list(self._recent), "S16")
        numbers = numpy.fromiter(self._recent.values(), numpy.int64, len(digests))
        self._recent = {}
        order = digests.argsort()
        digests, numbers = digests[order], numbers[order]
        places = self._digests.searchsorted(digests)
        known = places < len(self._digests)
        known[known] = self._digests[places[known]] == digests[known]
        self._numbers[places[known]] = numbers[known]
        self._digests = numpy.insert(self._digests, places[~known], digests[~known])
        self._numbers = numpy.insert(self._numbers, places[~known], numbers[~known])
