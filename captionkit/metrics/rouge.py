"""ROUGE as the `rouge_score` package gives it, stemmed and times 100."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import ClassVar

from captionkit.metrics.pairs import require_references
from captionkit.metrics.statistics import mean
from captionkit.types import Scores


class Rouge:
    """ROUGE-1, -2, -L, -Lsum: overlap of words, word pairs and subsequences, x 100 (100 is best).

    C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, as implemented by
    `rouge_score`: words are runs of a-z and 0-9 in lower case, those of more than three letters
    Porter-stemmed; each value is an F-measure. With many references, the best of them for each key
    and image; the corpus value is the mean over images (no bootstrap, hence deterministic).
    rougeLsum splits texts at line ends, so that it equals rougeL on captions of one line. For
    text that is not written in Latin letters use another metric: it has no words here.

    stem: False leaves the words as they are.
    """

    keys: ClassVar[tuple[str, ...]] = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    higher_is_better: ClassVar[bool] = True

    def __init__(self, stem: bool = True) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._scorer = RougeScorer(list(self.keys), use_stemmer=stem)
        self._per_image = {key: array("d") for key in self.keys}

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._per_image["rouge1"]))
        best = self._scorer.score_multi(references, prediction)
        for key, values in self._per_image.items():
            values.append(100 * best[key].fmeasure)

    def compute(self) -> Scores:
        """Each key as the mean over all pairs, and for each pair."""
        per_image = {key: values.tolist() for key, values in self._per_image.items()}
        return Scores({key: mean(values) for key, values in per_image.items()}, per_image)
