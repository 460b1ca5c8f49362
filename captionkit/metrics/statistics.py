"""From images to the corpus: the mean, and what is no mean in a form that can be resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def mean(values: Sequence[float]) -> float:
    """The mean; 0 where there is nothing."""
    return sum(values) / len(values) if values else 0.0
