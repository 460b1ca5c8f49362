"""Character error rate against the closest of the references."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import ClassVar

from captionkit.metrics.pairs import require_references
from captionkit.metrics.wer import closest, error_rate, normalized_words
from captionkit.types import Scores


class Cer:
    """Character error rate: edits to reach the closest reference, per character of it (0 is best).

    As `wer`, with characters (spaces included) for words. A fraction from 0, which may exceed 1.

    normalize: compare in lower case, without punctuation and with white space folded. False: only
    the white space around a text is removed, so one reference an image gives jiwer's own figure.
    """

    keys: ClassVar[tuple[str, ...]] = ("cer",)
    higher_is_better: ClassVar[bool] = False

    def __init__(self, normalize: bool = True) -> None:
        self._normalize = normalize
        self._edits = 0
        self._characters = 0
        self._per_image = array("d")

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._per_image))
        edits, characters = closest(self._text(prediction), list(map(self._text, references)))
        self._edits += edits
        self._characters += characters
        self._per_image.append(error_rate(edits, characters))

    def compute(self) -> Scores:
        """`cer` over all pairs, and for each."""
        corpus = error_rate(self._edits, self._characters)
        return Scores({"cer": corpus}, {"cer": self._per_image.tolist()})

    def _text(self, text: str) -> str:
        return " ".join(normalized_words(text)) if self._normalize else text.strip()
