"""METEOR as nltk computes it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, ClassVar

from captionkit.errors import NotInstalledError
from captionkit.metrics.pairs import require_references
from captionkit.metrics.ptb import ptb_tokenize
from captionkit.metrics.statistics import mean
from captionkit.types import Scores


class MeteorNltk:
    """nltk's METEOR: alignment of words, stems and synonyms (1 is best). Not comparable to papers.

    S. Banerjee, A. Lavie, "METEOR: an automatic metric for MT evaluation", 2005, in nltk's
    implementation on the COCO tokens: no paraphrases and the weights of 2005, so the values differ
    from those of METEOR 1.5 in captioning papers (see `meteor`). A fraction from 0 to 1: the best
    reference's for each image, over the corpus the mean.

    wordnet: an nltk reader of WordNet; default: nltk's own data.
    """

    keys: ClassVar[tuple[str, ...]] = ("meteor_nltk",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, wordnet: Any = None) -> None:
        if wordnet is None:
            if lacks := self.missing():
                raise NotInstalledError(f"The metric 'meteor_nltk' needs {lacks}.")
            from nltk.corpus import wordnet as installed  # type: ignore[import-untyped]

            wordnet = installed
        self._wordnet = wordnet
        self._per_image = array("d")

    @staticmethod
    def missing() -> str | None:
        """What it lacks on this machine, or None."""
        import nltk  # type: ignore[import-untyped]

        for name in ("corpora/wordnet", "corpora/wordnet.zip"):
            try:
                nltk.data.find(name)
            except LookupError:
                continue
            return None
        return "the data of WordNet: run python -m nltk.downloader wordnet"

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        from nltk.translate.meteor_score import meteor_score  # type: ignore[import-untyped]

        require_references(references, len(self._per_image))
        words = ptb_tokenize(prediction).split()
        others = [ptb_tokenize(reference).split() for reference in references]
        self._per_image.append(meteor_score(others, words, wordnet=self._wordnet))

    def compute(self) -> Scores:
        """The mean over all pairs, and the value of each."""
        return Scores(
            {"meteor_nltk": mean(self._per_image)}, {"meteor_nltk": list(self._per_image)}
        )
