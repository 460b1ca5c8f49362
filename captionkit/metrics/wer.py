"""Word error rate against the closest of the references."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Sequence
from typing import ClassVar

from captionkit.metrics.edit_distance import edit_distance
from captionkit.metrics.pairs import require_references
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
        self._edits = 0
        self._words = 0
        self._per_image = array("d")

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._per_image))
        predicted = self._split(prediction)
        edits, words = closest(predicted, [self._split(reference) for reference in references])
        self._edits += edits
        self._words += words
        self._per_image.append(error_rate(edits, words))

    def compute(self) -> Scores:
        """`wer` over all pairs, and for each."""
        return Scores(
            {"wer": error_rate(self._edits, self._words)}, {"wer": self._per_image.tolist()}
        )


def closest(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[int, int]:
    """(edits, length) of the reference with the fewest edits; of several such, the longest."""
    counts = ((edit_distance(reference, predicted), len(reference)) for reference in references)
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
