"""BLEU as in the COCO caption evaluation."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar

from captionkit.metrics.pairs import require_references
from captionkit.metrics.ptb import ptb_tokenize
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
        self._correct = [0] * _MAX_ORDER
        self._guessed = [0] * _MAX_ORDER
        self._length = 0
        self._reference_length = 0
        self._per_image = [array("d") for _ in self.keys]

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._per_image[0]))
        if not self._tokenized:
            prediction, references = ptb_tokenize(prediction), list(map(ptb_tokenize, references))
        words = prediction.split()
        others = [reference.split() for reference in references]
        correct = _clipped_matches(words, others)
        guessed = [max(0, len(words) - order) for order in range(_MAX_ORDER)]
        nearest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]

        for order in range(_MAX_ORDER):
            self._correct[order] += correct[order]
            self._guessed[order] += guessed[order]
        self._length += len(words)
        self._reference_length += nearest
        for values, value in zip(
            self._per_image, _bleu(correct, guessed, len(words), nearest), strict=True
        ):
            values.append(value)

    def compute(self) -> Scores:
        """Each order over the corpus, and for each pair."""
        corpus = _bleu(self._correct, self._guessed, self._length, self._reference_length)
        per_image = [values.tolist() for values in self._per_image]
        return Scores(
            dict(zip(self.keys, corpus, strict=True)), dict(zip(self.keys, per_image, strict=True))
        )


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


def _bleu(correct: Sequence[int], guessed: Sequence[int], length: int, nearest: int) -> list[float]:
    ratio = (length + _TINY) / (nearest + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product = 1.0
    values = []
    for order in range(_MAX_ORDER):
        product *= (correct[order] + _TINY) / (guessed[order] + _SMALL)
        values.append(product ** (1 / (order + 1)) * penalty)
    return values
