"""Resampling over images: how sure the difference between two systems is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from captionkit.metrics.statistics import CorpusStatistics
from captionkit.types import Metric, Scores

_NUMBERS_AT_ONCE = 2_000_000


def bootstrap_intervals(
    a: CorpusStatistics,
    b: CorpusStatistics,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """The interval of the difference b - a for each key, from the paired percentile bootstrap.

    Images are drawn with replacement, the same ones for both systems, and the corpus values
    computed anew. B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993; P. Koehn,
    "Statistical significance tests for machine translation evaluation", 2004.
    """
    differences: dict[str, list[np.ndarray]] = {}
    for drawn in _drawn_counts(len(a.per_image), resamples, seed):
        for key, values in _differences(a, b, drawn @ a.per_image, drawn @ b.per_image).items():
            differences.setdefault(key, []).append(values)
    tail = (1 - confidence) / 2
    intervals = {}
    for key, parts in differences.items():
        low, high = np.quantile(np.concatenate(parts), [tail, 1 - tail])
        intervals[key] = (float(low), float(high))
    return intervals


def permutation_p_values(
    a: CorpusStatistics, b: CorpusStatistics, permutations: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """How often a difference as large comes about when the two are swapped at random, two-sided.

    The paired permutation test ("approximate randomisation"); exact where all the ways to swap
    are no more than `permutations`. E. Noreen, "Computer-intensive methods for testing
    hypotheses", 1989.
    """
    sum_a, sum_b = a.per_image.sum(axis=0), b.per_image.sum(axis=0)
    observed = _differences(a, b, sum_a, sum_b)
    exact = len(a.per_image) <= np.log2(permutations)
    swaps = _all_swaps if exact else _random_swaps
    at_least = dict.fromkeys(observed, 0)
    total = 0
    for swapped in swaps(len(a.per_image), permutations, seed):
        moved = swapped @ (b.per_image - a.per_image)
        total += len(swapped)
        for key, values in _differences(a, b, sum_a + moved, sum_b - moved).items():
            rounding = 1e-12 * max(1.0, abs(float(observed[key])))
            at_least[key] += int(np.sum(np.abs(values) >= np.abs(observed[key]) - rounding))
    if exact:
        return {key: count / total for key, count in at_least.items()}
    return {key: (count + 1) / (total + 1) for key, count in at_least.items()}


def statistics_of(metric: Metric, scores: Scores) -> CorpusStatistics | None:
    """What can be resampled of a metric: its own counts, or the keys that are means over images."""
    if hasattr(metric, "statistics"):
        return metric.statistics()
    means = {
        key: values
        for key, values in scores.per_image.items()
        if values and np.isclose(np.mean(values), scores.corpus[key], rtol=1e-9, atol=1e-12)
    }
    if not means:
        return None
    per_image = np.array(list(means.values()), dtype=float).T
    return CorpusStatistics(
        per_image,
        lambda sums: {key: sums[..., i] / len(per_image) for i, key in enumerate(means)},
    )


def combined(statistics: Sequence[CorpusStatistics]) -> CorpusStatistics:
    """Several in one, so that they share their resamples."""
    ends = np.cumsum([each.per_image.shape[1] for each in statistics])

    def values(sums: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.split(sums, ends[:-1], axis=-1)
        return {
            k: v
            for s, part in zip(statistics, parts, strict=True)
            for k, v in s.values(part).items()
        }

    return CorpusStatistics(np.concatenate([s.per_image for s in statistics], axis=1), values)


def _differences(
    a: CorpusStatistics, b: CorpusStatistics, sums_a: np.ndarray, sums_b: np.ndarray
) -> dict[str, np.ndarray]:
    values_a, values_b = a.values(sums_a), b.values(sums_b)
    return {key: values_b[key] - values_a[key] for key in values_a if key in values_b}


def _drawn_counts(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn: `(resamples, images)`, in parts."""
    rng = np.random.default_rng(seed)
    for rows in _parts(images, resamples):
        drawn = rng.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        yield (
            np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(float)
        )


def _random_swaps(images: int, permutations: int, seed: int) -> Iterator[np.ndarray]:
    """Which images are swapped, 0 or 1: `(permutations, images)`, in parts."""
    rng = np.random.default_rng(seed)
    for rows in _parts(images, permutations):
        yield rng.integers(0, 2, (rows, images)).astype(float)


def _all_swaps(images: int, permutations: int, seed: int) -> Iterator[np.ndarray]:
    yield (np.arange(2**images)[:, None] >> np.arange(images) & 1).astype(float)


def _parts(images: int, total: int) -> Iterator[int]:
    rows = max(1, _NUMBERS_AT_ONCE // images)
    for start in range(0, total, rows):
        yield min(rows, total - start)
