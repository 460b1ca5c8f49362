"""Whether a model says (nearly) the same of every image: the most reported failure in captioning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def collapse_warning(captions: Sequence[str]) -> str | None:
    """A warning with the likely causes where nearly all captions are the same, else None."""
    if len(captions) < 8:
        return None
    text, count = Counter(captions).most_common(1)[0]
    if count < 0.9 * len(captions):
        return None
    return (
        f"{count} of {len(captions)} captions are the same: {text!r}. Likely causes: too few steps, "
        "a learning rate that is too high, images that do not reach the model (wrong column or "
        "preprocessing), or captions that are shuffled against their images."
    )
