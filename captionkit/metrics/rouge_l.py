"""ROUGE-L as in the COCO caption evaluation."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import ClassVar

from captionkit.metrics.pairs import require_references
from captionkit.metrics.ptb import ptb_tokenize
from captionkit.metrics.statistics import mean
from captionkit.types import Scores

_BETA = 1.2


class RougeL:
    """COCO's ROUGE-L: the longest common subsequence of words, recall weighed more (1 is best).

    C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, as the COCO
    evaluation computes it: an F-measure with beta 1.2 of the best precision and the best recall
    over the references (which may be two different ones), without stemming; a fraction from 0 to
    1; over the corpus the mean. Not comparable with the `rougeL` of `rouge`.

    tokenized: the texts are tokens already, joined by spaces; else they are tokenised as COCO does.
    """

    keys: ClassVar[tuple[str, ...]] = ("rouge_l",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, tokenized: bool = False) -> None:
        self._tokenized = tokenized
        self._per_image = array("d")

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._per_image))
        if not self._tokenized:
            prediction, references = ptb_tokenize(prediction), list(map(ptb_tokenize, references))
        # split at single spaces, as COCO does: an empty caption is one empty word
        words = prediction.split(" ")
        others = [reference.split(" ") for reference in references]
        common = _common_subsequences(words, others)
        precision = max(common) / len(words)
        recall = max(c / len(other) for c, other in zip(common, others, strict=True))
        score = 0.0
        if precision and recall:
            score = (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
        self._per_image.append(score)

    def compute(self) -> Scores:
        """The mean over all pairs, and the value of each."""
        return Scores({"rouge_l": mean(self._per_image)}, {"rouge_l": self._per_image.tolist()})


def _common_subsequences(words: Sequence[str], others: Sequence[Sequence[str]]) -> list[int]:
    """The length of the longest common subsequence with each of the others.

    Bit-parallel, a column of the table in one integer: H. Hyyrö, "Bit-parallel LCS-length
    computation revisited", 2004.
    """
    positions: dict[str, int] = {}
    for row, word in enumerate(words):
        positions[word] = positions.get(word, 0) | (1 << row)
    all_rows = (1 << len(words)) - 1
    lengths = []
    for other in others:
        column = all_rows
        for word in other:
            matches = column & positions.get(word, 0)
            column = (column + matches) | (column - matches)
        lengths.append(len(words) - (column & all_rows).bit_count())
    return lengths
