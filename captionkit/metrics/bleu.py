"""BLEU as in the COCO caption evaluation."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from captionkit.metrics.pairs import require_references
from captionkit.metrics.ptb import ptb_tokenize
from captionkit.metrics.statistics import CorpusStatistics
from captionkit.types import Scores

_MAX_ORDER = 4
# The COCO evaluation adds them to numerators and denominators instead of smoothing.
_TINY = 1e-15
_SMALL = 1e-9


class Bleu:
    """BLEU-1 to BLEU-4: precision of word n-grams, shorter captions penalised (1 is best).

    K. Papineni et al., "BLEU: a method for automatic evaluation of machine translation", 2002, as
    the COCO evaluation computes it: over the corpus from summed counts, the reference length
    nearest to the caption's (of two the shorter), no smoothing; a fraction from 0 to 1. The values
    per image are of that image alone; their mean is not the corpus value.

    tokenized: the texts are tokens already, joined by spaces; else they are tokenised as COCO does.
    """

    keys: ClassVar[tuple[str, ...]] = ("bleu1", "bleu2", "bleu3", "bleu4")
    higher_is_better: ClassVar[bool] = True

    def __init__(self, tokenized: bool = False) -> None:
        self._tokenized = tokenized
        # of each pair: matches of each order, words of the caption, words of the nearest reference
        self._counts = array("i")

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._counts) // (_MAX_ORDER + 2))
        if not self._tokenized:
            prediction, references = ptb_tokenize(prediction), list(map(ptb_tokenize, references))
        words = prediction.split()
        others = [reference.split() for reference in references]
        nearest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        self._counts.extend([*_clipped_matches(words, others), len(words), nearest])

    def compute(self) -> Scores:
        """Each order over the corpus, and for each pair."""
        statistics = self.statistics()
        corpus = statistics.values(statistics.per_image.sum(axis=0))
        per_image = statistics.values(statistics.per_image)
        return Scores(
            {key: float(value) for key, value in corpus.items()},
            {key: values.tolist() for key, values in per_image.items()},
        )

    def statistics(self) -> CorpusStatistics:
        """Matches, n-grams and lengths, to resample."""
        counts = np.array(self._counts, dtype=float).reshape(-1, _MAX_ORDER + 2)
        correct, lengths = counts[:, :_MAX_ORDER], counts[:, _MAX_ORDER:]
        guessed = np.maximum(0, lengths[:, :1] - np.arange(_MAX_ORDER))
        return CorpusStatistics(np.concatenate([correct, guessed, lengths], axis=1), _bleu)


def _clipped_matches(words: Sequence[str], references: Iterable[Sequence[str]]) -> list[int]:
    """For each order the n-grams that a reference has too, each as often as it has it at most."""
    matches = [0] * _MAX_ORDER
    for order in range(_MAX_ORDER):
        counts = Counter(_ngrams(words, order + 1))
        most: dict[tuple[str, ...], int] = {}
        for reference in references:
            found: dict[tuple[str, ...], int] = {}
            for ngram in _ngrams(reference, order + 1):
                if ngram in counts:
                    found[ngram] = found.get(ngram, 0) + 1
            for ngram, count in found.items():
                if count > most.get(ngram, 0):
                    most[ngram] = count
        if not most:
            break  # then no longer one matches either
        matches[order] = sum(min(count, counts[ngram]) for ngram, count in most.items())
    return matches


def _ngrams(words: Sequence[str], order: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(order)), strict=False)


def _bleu(counts: np.ndarray) -> dict[str, np.ndarray]:
    """counts: `(..., 10)`, matches and n-grams of each order, length, reference length."""
    correct, guessed = counts[..., :_MAX_ORDER], counts[..., _MAX_ORDER : 2 * _MAX_ORDER]
    length, nearest = counts[..., -2], counts[..., -1]
    ratio = (length + _TINY) / (nearest + _SMALL)
    penalty = np.exp(np.minimum(0, 1 - 1 / ratio))
    products = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=-1)
    return {key: products[..., i] ** (1 / (i + 1)) * penalty for i, key in enumerate(Bleu.keys)}
