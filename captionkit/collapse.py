"""Whether captions depend on their images at all: the most reported failure in captioning."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

from captionkit.metrics.ptb import ptb_tokenize

_FEWEST = 8  # below that many images chance explains anything
_FEWEST_TO_SHUFFLE = 30  # below that many a weak model cannot be told from a blind one
_MOST = 1000  # images that the shuffles are tried on
_SHUFFLES = 99
_SAME_SHARE = 0.9
_CAUSES = (
    "Likely causes: too few steps, a learning rate that is too high, images that do not reach the "
    "model (wrong column or preprocessing), or captions that are shuffled against their images."
)


def collapse_warning(
    captions: Sequence[str], references: Sequence[Sequence[str]] | None = None
) -> str | None:
    """A warning with the likely causes where captions do not depend on their images, else None.

    That is, where at least 90 % of them are the same; or, given the references of each image,
    where they fit those no better than, after one of 99 shuffles, those of other images.
    """
    if len(captions) < _FEWEST:
        return None
    text, count = Counter(captions).most_common(1)[0]
    if count >= _SAME_SHARE * len(captions):
        return f"{count} of {len(captions)} captions are the same: {text!r}. {_CAUSES}"
    enough = len(captions) >= _FEWEST_TO_SHUFFLE
    if references is not None and enough and _blind(captions, references):
        return (
            f"The {len(captions)} captions fit their own images no better than they fit other "
            f"images: with the images shuffled they score the same. {_CAUSES}"
        )
    return None


def _blind(captions: Sequence[str], references: Sequence[Sequence[str]]) -> bool:
    """Whether some shuffle of the images fits the captions as well as their own images."""
    rng = random.Random(0)
    chosen: Sequence[int] = range(len(captions))
    if len(chosen) > _MOST:
        chosen = rng.sample(chosen, _MOST)
    said = [frozenset(ptb_tokenize(captions[i]).split()) for i in chosen]
    true = [frozenset(w for r in references[i] for w in ptb_tokenize(r).split()) for i in chosen]
    if max(Counter(true).values()) > len(true) / 2:
        return False  # most images are alike, by their references
    images_with = Counter(word for words in true for word in words)
    rarity = {word: math.log(len(true) / count) for word, count in images_with.items()}

    own = _fit(said, true, rarity)
    others = list(true)
    for _ in range(_SHUFFLES):
        rng.shuffle(others)
        if _fit(said, others, rarity) >= own:
            return True
    return False


def _fit(
    said: Sequence[frozenset[str]], true: Sequence[frozenset[str]], rarity: dict[str, float]
) -> float:
    """The words that captions share with references, each counted by its rarity."""
    return sum(rarity[word] for a, b in zip(said, true, strict=True) for word in a & b)
