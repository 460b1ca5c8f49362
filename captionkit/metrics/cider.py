"""CIDEr as in the COCO caption evaluation, over arrays of n-gram ids."""

from __future__ import annotations

import os
import warnings
from array import array
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from captionkit.errors import MetricError
from captionkit.metrics.document_frequencies import DocumentFrequencies
from captionkit.metrics.pairs import require_references
from captionkit.metrics.word_corpus import MAX_ORDER, Ngrams, WordCorpus
from captionkit.types import Scores

_SIGMA = 6.0


class Cider:
    """CIDEr: agreement with the references in n-grams that are rare elsewhere (10 is best).

    R. Vedantam, C. L. Zitnick, D. Parikh, "CIDEr: consensus-based image description evaluation",
    2015, as the COCO evaluation computes it: the variant that the paper calls CIDEr-D (counts
    clipped to the reference's, a penalty on length), without stemming. The mean over references
    and orders 1 to 4 of the cosine between TF-IDF vectors, times 10; over the corpus the mean.

    document_frequencies: a `DocumentFrequencies` or its file, over a larger set of references.
    Else they are counted over the references given, so that a single image always scores 0.
    tokenized: the texts are tokens already, joined by spaces. robust: False gives the plain CIDEr
    of the paper, neither clipped nor penalised.
    """

    keys: ClassVar[tuple[str, ...]] = ("cider",)
    higher_is_better: ClassVar[bool] = True

    def __init__(
        self,
        document_frequencies: DocumentFrequencies | str | os.PathLike[str] | None = None,
        tokenized: bool = False,
        robust: bool = True,
    ) -> None:
        if isinstance(document_frequencies, (str, os.PathLike)):
            document_frequencies = DocumentFrequencies.load(document_frequencies)
        if document_frequencies and document_frequencies.tokenized != tokenized:
            raise MetricError(
                f"The document frequencies were counted with tokenized="
                f"{document_frequencies.tokenized}, the captions come with tokenized={tokenized}."
            )
        self._frequencies = document_frequencies
        self._robust = robust
        words = document_frequencies.words if document_frequencies else ()
        self._corpus = WordCorpus(words, tokenized)
        self._captions_per_image = array("i")

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._captions_per_image))
        self._corpus.add(prediction)
        for reference in references:
            self._corpus.add(reference)
        self._captions_per_image.append(1 + len(references))

    def compute(self) -> Scores:
        """The mean over all pairs, and the value of each."""
        images = len(self._captions_per_image)
        if not images:
            return Scores({self.keys[0]: 0.0}, {self.keys[0]: []})
        if images == 1 and self._frequencies is None:
            warnings.warn(
                "CIDEr over a single image is 0 by definition: no n-gram is rarer than another. "
                "Give document_frequencies of a larger set.",
                stacklevel=2,
            )
        per_image = _cider(
            self._corpus,
            np.array(self._captions_per_image, dtype=np.int64),
            self._frequencies,
            self._robust,
        )
        return Scores({self.keys[0]: float(per_image.mean())}, {self.keys[0]: per_image.tolist()})


class CiderD(Cider):
    """CIDEr-D, by the name that the paper gives it: the same values as `cider` (10 is best)."""

    keys: ClassVar[tuple[str, ...]] = ("cider_d",)


def _cider(
    corpus: WordCorpus,
    captions_per_image: np.ndarray,
    frequencies: DocumentFrequencies | None,
    robust: bool,
) -> np.ndarray:
    """`(images,)`. Of each image's captions in the corpus the first is the prediction."""
    images = np.repeat(np.arange(len(captions_per_image)), captions_per_image)
    predictions = np.cumsum(captions_per_image) - captions_per_image
    prediction_of = predictions[images]
    is_reference = np.arange(len(images)) != prediction_of

    similarity = np.zeros(len(images))
    for order, ngrams in enumerate(corpus.ngrams(frequencies.ngrams if frequencies else ())):
        entries = _Entries(ngrams, images, is_reference)
        if frequencies:
            counts = np.zeros(ngrams.count)
            counts[ngrams.known] = frequencies.counts[order]
            total = frequencies.images
        else:
            counts = entries.document_counts()
            total = len(captions_per_image)
        rarity = np.log(total) - np.log(np.maximum(counts, 1))
        similarity += entries.cosines(rarity, prediction_of, robust)
    if robust:
        bigrams = np.maximum(corpus.lengths - 1, 0)  # COCO measures length in bigrams
        difference = (bigrams - bigrams[prediction_of]).astype(float)
        similarity *= np.exp(-(difference**2) / (2 * _SIGMA**2))
    sums = np.bincount(
        images[is_reference], similarity[is_reference], minlength=len(captions_per_image)
    )
    return 10 * sums / MAX_ORDER / (captions_per_image - 1)


class _Entries:
    """One entry for each caption and distinct n-gram, sorted by image, n-gram, caption."""

    def __init__(self, ngrams: Ngrams, images: np.ndarray, is_reference: np.ndarray) -> None:
        keys = images[ngrams.caption] * ngrams.count + ngrams.gram
        by_image_and_gram = np.argsort(keys, kind="stable")  # captions stay in order
        keys, captions = keys[by_image_and_gram], ngrams.caption[by_image_and_gram]
        new_group = _changes(keys)
        starts = np.flatnonzero(new_group | _changes(captions))
        self.count = ngrams.count
        self.caption = captions[starts]
        self.gram = ngrams.gram[by_image_and_gram[starts]]
        self.frequency = np.diff(starts, append=len(keys))
        self.from_reference = is_reference[self.caption]
        self.new_group = new_group[starts]  # a group: the same image and n-gram

    def document_counts(self) -> np.ndarray:
        """In the references of how many images each n-gram occurs: `(count,)`."""
        # the prediction comes first: where a group's last entry is no reference, none is
        last = np.append(self.new_group[1:], True)[: len(self.gram)]
        return np.bincount(self.gram[last & self.from_reference], minlength=self.count)

    def cosines(self, rarity: np.ndarray, prediction_of: np.ndarray, robust: bool) -> np.ndarray:
        """Of each caption with the prediction for its image: `(captions,)`."""
        captions = len(prediction_of)
        weight = self.frequency * rarity[self.gram]
        norm = np.sqrt(np.bincount(self.caption, weight**2, minlength=captions))
        first_of_group = np.flatnonzero(self.new_group)[np.cumsum(self.new_group) - 1]
        predicted = np.where(self.from_reference[first_of_group], 0.0, weight[first_of_group])
        shared = np.minimum(predicted, weight) if robust else predicted
        dot = np.bincount(self.caption, shared * weight, minlength=captions)
        norms = norm * norm[prediction_of]
        return dot / np.where(norms == 0, 1, norms)


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before it; true at the first."""
    changed = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed
