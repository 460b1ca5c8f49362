"""How varied the captions are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import ClassVar

from captionkit.metrics.ptb import ptb_tokenize
from captionkit.types import Scores


class Distinct:
    """Variety: different captions, different words, share of the most common caption.

    `distinct_captions` and `vocabulary` count what differs among the captions and among their
    words, after the COCO tokenisation (more is more varied); `most_common_share` is the share of
    images that get the most common caption, from 1/images to 1 (less is more varied; 1: the model
    says the same of every image). The references are not looked at.

    Per image: one divided by the number of images with its caption (these add up to
    `distinct_captions`); its own number of different words; 1 for the most common caption, else 0
    (the mean of these is `most_common_share`).
    """

    keys: ClassVar[tuple[str, ...]] = ("distinct_captions", "vocabulary", "most_common_share")
    higher_is_better: ClassVar[bool] = True
    lower_is_better_keys: ClassVar[frozenset[str]] = frozenset({"most_common_share"})

    def __init__(self) -> None:
        self._captions: dict[str, int] = {}
        self._counts = array("i")  # of each caption
        self._caption_of = array("i")  # of each image

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        index = self._captions.setdefault(ptb_tokenize(prediction), len(self._captions))
        if index == len(self._counts):
            self._counts.append(0)
        self._counts[index] += 1
        self._caption_of.append(index)

    def compute(self) -> Scores:
        """The three values, over all pairs and for each."""
        if not self._captions:
            return Scores(dict.fromkeys(self.keys, 0.0), {key: [] for key in self.keys})
        words = [set(caption.split()) for caption in self._captions]
        most_common = self._counts.index(max(self._counts))
        return Scores(
            {
                "distinct_captions": float(len(self._captions)),
                "vocabulary": float(len(set().union(*words))),
                "most_common_share": max(self._counts) / len(self._caption_of),
            },
            {
                "distinct_captions": [1 / self._counts[i] for i in self._caption_of],
                "vocabulary": [float(len(words[i])) for i in self._caption_of],
                "most_common_share": [float(i == most_common) for i in self._caption_of],
            },
        )
