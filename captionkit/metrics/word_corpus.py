"""Captions as numbers: what metrics over a whole corpus keep, four bytes a word."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from captionkit.metrics.ptb import ptb_tokenize

MAX_ORDER = 4


class WordCorpus:
    """Captions one after the other, as ids of their words.

    words: the vocabulary to start with, ids in its order. tokenized: the texts are tokens already,
    joined by spaces; else they are tokenised as in the COCO evaluation.
    """

    def __init__(self, words: Iterable[str] = (), tokenized: bool = False) -> None:
        self.vocabulary = {word: i for i, word in enumerate(words)}
        self._tokenized = tokenized
        self._ids = array("i")
        self._lengths = array("i")

    def add(self, caption: str) -> None:
        """Append one caption."""
        tokens = (caption if self._tokenized else ptb_tokenize(caption)).split()
        vocabulary = self.vocabulary
        self._ids.extend([vocabulary.setdefault(token, len(vocabulary)) for token in tokens])
        self._lengths.append(len(tokens))

    @property
    def lengths(self) -> np.ndarray:
        """Words of each caption: `(captions,)`."""
        return np.array(self._lengths, dtype=np.int64)

    def ngrams(self, known: Sequence[KnownNgrams] = ()) -> Iterator[Ngrams]:
        """All n-grams of order 1, 2, 3, 4, with ids that are dense within an order.

        known: tables of n-grams to find among them, one for each order, over the same word ids.
        """
        ids = np.array(self._ids, dtype=np.int64)
        lengths = self.lengths
        captions = np.repeat(np.arange(len(lengths)), lengths)
        ends = np.repeat(np.cumsum(lengths), lengths)
        size = len(self.vocabulary)

        starts = np.arange(len(ids))
        grams, known_grams, count = ids, np.arange(len(known[0].last) if known else 0), size
        prefixes = np.zeros(size, dtype=np.int64)
        last = np.arange(size)
        for order in range(1, MAX_ORDER + 1):
            if order > 1:
                fits = starts + order <= ends[starts]
                starts, grams = starts[fits], grams[fits]
                keys = grams * size + ids[starts + order - 1]
                if known:
                    table = known[order - 1]
                    keys = np.concatenate([keys, known_grams[table.prefix] * size + table.last])
                distinct, inverse = np.unique(keys, return_inverse=True)
                grams, known_grams = np.split(inverse, [len(starts)])
                prefixes, last = np.divmod(distinct, max(size, 1))
                count = len(distinct)
            yield Ngrams(captions[starts], grams, count, known_grams, KnownNgrams(prefixes, last))


@dataclass(frozen=True)
class KnownNgrams:
    """Distinct n-grams of one order: the id of all but the last word, and the last word's id."""

    prefix: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of one order, in the order of the text.

    caption, gram: `(occurrences,)`. count: the number of different ids. known: the id of each
    n-gram of the known table. distinct: the n-grams behind the ids.
    """

    caption: np.ndarray
    gram: np.ndarray
    count: int
    known: np.ndarray
    distinct: KnownNgrams
