"""A metric: how many of the colours that the references name a caption names too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from captionkit.types import Scores

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "grey", "orange")


class ColourRecall:
    """Share of the references' colour words that the caption has, from 0 to 1.

    A word that comes twice counts twice, as often as the reference with most of it has it. Pairs
    whose references name no colour score 1 and do not count in the corpus.
    """

    keys: ClassVar[tuple[str, ...]] = ("colour_recall",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self) -> None:
        self._named = 0
        self._found = 0
        self._per_image: list[float] = []

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        said = _colours(prediction)
        known = [_colours(reference) for reference in references]
        wanted = {colour: max(words.count(colour) for words in known) for colour in COLOURS}
        found = sum(min(count, said.count(colour)) for colour, count in wanted.items())
        named = sum(wanted.values())
        self._named += named
        self._found += found
        self._per_image.append(found / named if named else 1.0)

    def compute(self) -> Scores:
        """The share over all pairs, and that of each."""
        corpus = self._found / self._named if self._named else 1.0
        return Scores({"colour_recall": corpus}, {"colour_recall": list(self._per_image)})


def _colours(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word in COLOURS]
