"""What is kept of one captioned image, in the journal and in files of captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from captionkit.bulk.wording import one_line
from captionkit.types import Caption

Row = dict[str, Any]

_DIGITS = 4  # of scores and probabilities; backends agree to 1e-4


def caption_row(key: str, captions: Sequence[Caption], text: str, before: str | None) -> Row:
    """The row of an image: the caption to keep, its score, the alternatives, best first.

    before: the caption that the image had. Scores that are not numbers are None.
    """
    best, *others = captions
    row: Row = {"image": key, "caption": text, "score": _rounded(best.score)}
    if others:
        row["alternatives"] = [
            {"caption": one_line(other.text), "score": _rounded(other.score)} for other in others
        ]
    probabilities = getattr(best, "token_probabilities", None)
    if probabilities is not None:
        row["token_probabilities"] = [
            {"token": token, "probability": _rounded(p)} for token, p in probabilities
        ]
    if before is not None:
        row["before"] = before
    return row


def failure_row(key: str, reason: str) -> Row:
    """The row of an image that has no caption, and why."""
    return {"image": key, "failed": reason}


def _rounded(value: float) -> float | None:
    return round(float(value), _DIGITS) if math.isfinite(value) else None
