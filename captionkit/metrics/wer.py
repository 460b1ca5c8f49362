"""Word error rate against the closest of the references."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from captionkit.metrics.pairs import require_references
from captionkit.metrics.statistics import CorpusStatistics
from captionkit.types import Scores


class Wer:
    """Word error rate: edits to reach the closest reference, per word of it (0 is best).

    For each image the reference with the fewest edits (insertions, deletions, substitutions of
    words) is taken, of several such the longest; all edits are divided by all words of the
    references taken. A fraction from 0, which may exceed 1 where predictions are longer than
    references. Where the references taken hold no word at all, it is the number of edits.

    normalize: compare in lower case, without punctuation (Unicode categories P*) and with white
    space folded. False: the words as jiwer splits them, so one reference an image gives jiwer's
    own figure.
    """

    keys: ClassVar[tuple[str, ...]] = ("wer",)
    higher_is_better: ClassVar[bool] = False

    def __init__(self, normalize: bool = True) -> None:
        self._split = normalized_words if normalize else jiwer_words
        self._counts = EditCounts("wer")

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._counts))
        split = self._split
        self._counts.add(*closest(split(prediction), [split(text) for text in references]))

    def compute(self) -> Scores:
        """`wer` over all pairs, and for each."""
        return self._counts.scores()

    def statistics(self) -> CorpusStatistics:
        """Edits and reference words, to resample."""
        return self._counts.statistics()


class EditCounts:
    """Edits and reference lengths, pair by pair, and the error rate that follows from them."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._edits = array("i")
        self._lengths = array("i")

    def __len__(self) -> int:
        return len(self._edits)

    def add(self, edits: int, length: int) -> None:
        """The counts of one more pair."""
        self._edits.append(edits)
        self._lengths.append(length)

    def scores(self) -> Scores:
        """The rate over all pairs, and for each."""
        pairs = zip(self._edits, self._lengths, strict=True)
        per_image = [error_rate(edits, length) for edits, length in pairs]
        corpus = error_rate(sum(self._edits), sum(self._lengths))
        return Scores({self._key: corpus}, {self._key: per_image})

    def statistics(self) -> CorpusStatistics:
        """The counts, to resample."""
        counts = np.array([self._edits, self._lengths], dtype=float).T
        return CorpusStatistics(
            counts, lambda sums: {self._key: sums[..., 0] / np.maximum(sums[..., 1], 1)}
        )


def closest(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[int, int]:
    """(edits, length) of the reference with the fewest edits; of several such, the longest."""
    from rapidfuzz.distance import Levenshtein  # what jiwer counts edits with

    counts = (
        (Levenshtein.distance(reference, predicted), len(reference)) for reference in references
    )
    return min(counts, key=lambda count: (count[0], -count[1]))


def error_rate(edits: int, length: int) -> float:
    """Edits divided by the reference length; as in jiwer, the edits themselves where that is 0."""
    return edits / length if length else float(edits)


def normalized_words(text: str) -> list[str]:
    """The words in lower case, without punctuation."""
    return text.lower().translate(_PUNCTUATION).split()


def jiwer_words(text: str) -> list[str]:
    """The words as jiwer's default transformation splits them."""
    return [word for word in re.sub(r"\s\s+", " ", text).strip().split(" ") if word]


class _Punctuation(dict[int, int | None]):
    """A translation table that drops category P*, filled in as characters occur."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code)).startswith("P") else code
        return self[code]


_PUNCTUATION = _Punctuation()
