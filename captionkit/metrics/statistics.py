"""Corpus values that are no mean over images, in a form that can be resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CorpusStatistics:
    """The counts behind a corpus value: of each image, and what their sums amount to.

    per_image: `(images, counts)`. values: from sums of shape `(..., counts)` to one array of shape
    `(...)` for each key.
    """

    per_image: np.ndarray
    values: Callable[[np.ndarray], dict[str, np.ndarray]]
