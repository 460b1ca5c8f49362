"""What is kept of one captioned image, in the journal and in files of captions."""

from __future__ import annotations

import math
import os
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


def is_whole(row: Row) -> bool:
    """Whether a row from a file is one that the functions above make.

    The file may have come from elsewhere, so that is looked at before anything is written with it:
    a row names no file outside of the output folder.
    """
    image, file = row.get("image"), row.get("file", "")
    if not (_is_text(image, "surrogateescape") and image and "\0" not in image):
        return False
    if "failed" in row:
        return "caption" not in row and _is_text(row["failed"])
    others, tokens = row.get("alternatives", []), row.get("token_probabilities", [])
    return (
        _is_text(row.get("caption"))
        and isinstance(row.get("before", ""), str)
        and "score" in row
        and _is_score(row["score"])
        and _are(others, "caption", "score")
        and _are(tokens, "token", "probability")
        and _is_text(file, "surrogateescape")
        and "\0" not in file
        and not os.path.isabs(file)
        and ".." not in file.split("/")
    )


def _are(rows: Any, text: str, number: str) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and row.keys() == {text, number}
        and _is_text(row[text])
        and _is_score(row[number])
        for row in rows
    )


def _is_text(value: Any, surrogates: str = "strict") -> bool:
    try:
        return isinstance(value, str) and value.encode("utf-8", surrogates) is not None
    except UnicodeEncodeError:
        return False


def _is_score(value: Any) -> bool:
    if value is None or isinstance(value, float):
        return value is None or math.isfinite(value)
    return type(value) is int and abs(value) < 2**53


def _rounded(value: float) -> float | None:
    return round(float(value), _DIGITS) if math.isfinite(value) else None
