"""What a model says over a whole dataset: lengths, vocabulary, and whether it repeats itself."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from captionkit.report.run import Prediction
from captionkit.report.words import words

# Below so many images, equal captions prove nothing.
_FEWEST_TO_JUDGE = 8
# Frequent English words that tell nothing about a picture.
_FUNCTION_WORDS = """
    a an the and or but of to in on at by for from with without into onto over under is are was
    were be been being it its this that these those there their his her he she they them as has
    have had while which who some
"""


@dataclass(frozen=True)
class Language:
    """Counts over all captions; lengths are in words, lists are (text, images)."""

    images: int
    distinct: int
    lengths: list[int]
    reference_lengths: list[int]
    vocabulary: int
    reference_vocabulary: int
    repeated: list[tuple[str, int]]
    never_said: list[tuple[str, int]]
    unsupported: list[tuple[str, int]]
    warning: str

    @property
    def distinct_share(self) -> float:
        """Distinct captions in percent of images."""
        return 100 * self.distinct / self.images

    @property
    def mean_length(self) -> float:
        """Mean words a caption."""
        return statistics.fmean(self.lengths)

    @property
    def mean_reference_length(self) -> float | None:
        """Mean words a reference, or None without references."""
        return statistics.fmean(self.reference_lengths) if self.reference_lengths else None


def language_of(predictions: Sequence[Prediction]) -> Language | None:
    """Count what the captions and the references say; None without predictions."""
    if not predictions:
        return None
    function_words = set(_FUNCTION_WORDS.split())
    captions: Counter[str] = Counter()
    said: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    unsupported: Counter[str] = Counter()
    lengths, reference_lengths = [], []
    for prediction in predictions:
        own = words(prediction.text)
        theirs = [words(reference) for reference in prediction.references]
        lengths.append(len(own))
        reference_lengths += [len(reference) for reference in theirs]
        captions[" ".join(own)] += 1
        here = {word for reference in theirs for word in reference}
        said.update(set(own))
        expected.update(here)
        if theirs:
            unsupported.update(set(own) - here - function_words)
    never = [
        (word, n)
        for word, n in expected.most_common()
        if n > 1 and word not in said and word not in function_words
    ]
    repeated = [(caption, n) for caption, n in captions.most_common(5) if n > 1]
    return Language(
        images=len(predictions),
        distinct=len(captions),
        lengths=lengths,
        reference_lengths=reference_lengths,
        vocabulary=len(said),
        reference_vocabulary=len(expected),
        repeated=[(caption or "(empty)", n) for caption, n in repeated],
        never_said=never[:14],
        unsupported=unsupported.most_common(14),
        warning=_collapse(captions, predictions),
    )


def _collapse(captions: Counter[str], predictions: Sequence[Prediction]) -> str:
    """A sentence where many images get the same few captions, more so than in the references."""
    images = len(predictions)
    if images < _FEWEST_TO_JUDGE:
        return ""
    expected = Counter(" ".join(words(p.references[0])) for p in predictions if p.references)
    (caption, times), *_ = captions.most_common(1)
    usual = max(expected.values(), default=0)
    if times >= 0.5 * images and times > 1.5 * usual:
        found = f"{times:,} of {images:,} images get the same caption, “{caption or '(empty)'}”."
    elif len(captions) <= 0.1 * images and (not expected or len(expected) > 2 * len(captions)):
        found = f"{images:,} images share only {len(captions):,} distinct captions."
    else:
        return ""
    return (
        f"{found} The model may have stopped looking at the images: train longer or with a lower "
        "learning rate, and check that images and captions belong together."
    )
