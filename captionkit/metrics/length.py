"""How long the captions are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import ClassVar

from captionkit.metrics.ptb import ptb_tokenize
from captionkit.metrics.statistics import mean
from captionkit.types import Scores


class Length:
    """Words a caption, as the COCO evaluation tokenises it (no direction is better).

    From 0; over the corpus the mean. The references are not looked at.
    """

    keys: ClassVar[tuple[str, ...]] = ("length",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self) -> None:
        self._per_image = array("d")

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        self._per_image.append(len(ptb_tokenize(prediction).split()))

    def compute(self) -> Scores:
        """The mean over all pairs, and the value of each."""
        return Scores({"length": mean(self._per_image)}, {"length": self._per_image.tolist()})
