"""Comparing two systems on the same images: is the difference more than chance?"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from captionkit.caption_tables import CaptionTable, read_predictions, read_references
from captionkit.errors import ConfigError, DataError, MetricError
from captionkit.metrics import merge_scores, score_with
from captionkit.metrics.significance import (
    bootstrap_intervals,
    combined,
    permutation_p_values,
    statistics_of,
)
from captionkit.printable import csv_cell
from captionkit.score_files import (
    match_references,
    metric_for_files,
    own_references,
    write_output,
)
from captionkit.types import Metric, Scores


@dataclass(frozen=True)
class Difference:
    """One value of two systems.

    difference: b - a. low, high: its confidence interval (paired bootstrap), p_value: of no
    difference (paired permutation test, two-sided); None where a value cannot be resampled.
    a_better, b_better, same: the number of images.
    """

    key: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    a_better: int
    b_better: int
    same: int


@dataclass(frozen=True)
class Comparison:
    """Two systems, a and b, on the same images in the same order."""

    image_ids: list[str]
    predictions_a: list[str]
    predictions_b: list[str]
    differences: list[Difference]
    scores_a: Scores
    scores_b: Scores
    confidence: float
    name_a: str = "a"
    name_b: str = "b"

    def table(self) -> str:
        """A row for each value, as text."""
        head = ["", "a", "b", "b - a", f"{self.confidence:.0%} interval", "p"]
        rows = [[*head, "a better", "b better", "same"]]
        for d in self.differences:
            interval = "-" if d.low is None else f"{d.low:+.4g} to {d.high:+.4g}"
            p_value = "-" if d.p_value is None else f"{d.p_value:.4f}"
            rows.append([d.key, f"{d.a:.6g}", f"{d.b:.6g}", f"{d.difference:+.4g}", interval])
            counts = [d.a_better, d.b_better, d.same]
            rows[-1] += [p_value, *(map(str, counts) if sum(counts) else "---")]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        names = f"{len(self.image_ids)} images; a: {self.name_a}, b: {self.name_b}"
        return "\n".join([*lines, "", names])

    def write_json(self, path: Path) -> None:
        """Write the differences."""
        values = {
            "a": self.name_a,
            "b": self.name_b,
            "images": len(self.image_ids),
            "confidence": self.confidence,
            "differences": [dataclasses.asdict(d) for d in self.differences],
        }
        write_output(path, json.dumps(values, indent=2) + "\n")

    def write_csv(self, path: Path) -> None:
        """Write a row an image: its id, both predictions, both values of each key."""
        keys = [key for key in self.scores_a.per_image if key in self.scores_b.per_image]
        columns: list[Sequence[object]] = [
            [csv_cell(text) for text in column]
            for column in (self.image_ids, self.predictions_a, self.predictions_b)
        ]
        for key in keys:
            columns += [self.scores_a.per_image[key], self.scores_b.per_image[key]]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        header = [f"{key}_{system}" for key in keys for system in "ab"]
        writer.writerow(["image_id", "prediction_a", "prediction_b", *header])
        writer.writerows(zip(*columns, strict=True))
        write_output(path, text.getvalue())


def compare_files(
    a: Path,
    b: Path,
    references: Path | None = None,
    metrics: Sequence[str] = ("wer", "rouge"),
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    document_frequencies: Path | None = None,
) -> Comparison:
    """Compare two files of predictions for the same images.

    Files and references as `score_files` takes them; without `references` those that come with
    a. Raises `DataError` where the files are of different images.
    """
    table_a, table_b = read_predictions(a), read_predictions(b)
    _check_same_images(table_a, table_b)
    matched = match_references(table_a, read_references(references or own_references(a)))
    image_ids = list(table_a.captions)
    comparison = compare(
        [table_a.captions[name][0] for name in image_ids],
        [table_b.captions[name][0] for name in image_ids],
        [matched[name] for name in image_ids],
        [functools.partial(metric_for_files, name, document_frequencies) for name in metrics],
        resamples,
        confidence,
        seed,
    )
    return dataclasses.replace(comparison, image_ids=image_ids, name_a=str(a), name_b=str(b))


def compare(
    predictions_a: Sequence[str],
    predictions_b: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str | Callable[[], Metric]] = ("wer", "rouge"),
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two lists of captions for the same images.

    metrics: names, or what makes a fresh `Metric` (its class, for example).
    resamples: of the bootstrap and of the permutation test alike. Deterministic given the seed.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"resamples={resamples} and confidence={confidence} are not possible: at least one "
            "resample, and a confidence between 0 and 1."
        )
    if not len(predictions_a) == len(predictions_b) == len(references):
        raise MetricError(
            f"There are {len(predictions_a)} and {len(predictions_b)} predictions and "
            f"{len(references)} references: each image needs one of each."
        )
    results_a, results_b = (
        score_with(
            [m if isinstance(m, str) else m() for m in metrics],
            zip(predictions, references, strict=True),
        )
        for predictions in (predictions_a, predictions_b)
    )
    differences: list[Difference] = []
    scores_a = merge_scores(scores for _, scores in results_a)
    scores_b = merge_scores(scores for _, scores in results_b)
    intervals, p_values = _resampled(results_a, results_b, resamples, confidence, seed)
    for (metric, one), (_, other) in zip(results_a, results_b, strict=True):
        lower = getattr(metric, "lower_is_better_keys", ())
        for key in (key for key in one.corpus if key in other.corpus):
            sign = 1 if metric.higher_is_better and key not in lower else -1
            a, b = one.corpus[key], other.corpus[key]
            low, high = intervals.get(key, (None, None))
            wins = _wins(one.per_image.get(key, []), other.per_image.get(key, []), sign)
            differences.append(Difference(key, a, b, b - a, low, high, p_values.get(key), *wins))
    ids = [str(i) for i in range(len(references))]
    return Comparison(
        ids, list(predictions_a), list(predictions_b), differences, scores_a, scores_b, confidence
    )


def _resampled(
    results_a: Sequence[tuple[Metric, Scores]],
    results_b: Sequence[tuple[Metric, Scores]],
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Intervals and p-values of the keys that both systems can be resampled in."""
    pairs = []
    for result_a, result_b in zip(results_a, results_b, strict=True):
        one, other = statistics_of(*result_a), statistics_of(*result_b)
        if one is not None and other is not None:
            pairs.append((one, other))
    if not pairs:
        return {}, {}
    a, b = (combined(each) for each in zip(*pairs, strict=True))
    intervals = bootstrap_intervals(a, b, resamples, confidence, seed)
    return intervals, permutation_p_values(a, b, resamples, seed)


def _wins(a: Sequence[float], b: Sequence[float], sign: int) -> tuple[int, int, int]:
    """Images on which a is better, b is better, and on which they are the same."""
    gains = [
        0.0 if math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12) else sign * (y - x)
        for x, y in zip(a, b, strict=True)
    ]  # CIDEr of equal captions differs in its last bits, by what the other captions are
    a_better, b_better = sum(g < 0 for g in gains), sum(g > 0 for g in gains)
    return a_better, b_better, len(gains) - a_better - b_better


def _check_same_images(a: CaptionTable, b: CaptionTable) -> None:
    if a.captions.keys() == b.captions.keys() and a.positional == b.positional:
        return
    only_a = [name for name in a.captions if name not in b.captions]
    only_b = [name for name in b.captions if name not in a.captions]
    raise DataError(
        f"{a.path} and {b.path} should caption the same images: {len(only_a)} are only in the "
        f"first ({', '.join(only_a[:3])}), {len(only_b)} only in the second "
        f"({', '.join(only_b[:3])})."
    )
