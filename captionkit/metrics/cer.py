"""Character error rate against the closest of the references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from captionkit.metrics.pairs import require_references
from captionkit.metrics.statistics import CorpusStatistics
from captionkit.metrics.wer import EditCounts, closest, normalized_words
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
        self._counts = EditCounts("cer")

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._counts))
        self._counts.add(*closest(self._text(prediction), list(map(self._text, references))))

    def compute(self) -> Scores:
        """`cer` over all pairs, and for each."""
        return self._counts.scores()

    def statistics(self) -> CorpusStatistics:
        """Edits and reference characters, to resample."""
        return self._counts.statistics()

    def _text(self, text: str) -> str:
        return " ".join(normalized_words(text)) if self._normalize else text.strip()
