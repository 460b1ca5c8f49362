"""Metrics on strings: what `captionkit.score` calls, one file a metric.

A metric is named in the registry (entry points `captionkit.metrics`), streams pair by pair, and
gives its values over the corpus and per image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from captionkit.errors import MetricError
from captionkit.metrics.pairs import EmptyPredictionWarning, PairCheck
from captionkit.registry import get_metric
from captionkit.types import Metric, Scores

__all__ = ["EmptyPredictionWarning", "score", "score_pairs"]


def score(
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    metrics: Sequence[str | Metric] = ("wer", "rouge"),
) -> dict[str, float]:
    """Score captions: the corpus value of each key of the metrics.

    references: for each prediction one text or a list of texts. metrics: registered names,
    modules of `evaluate`, or `Metric` objects. Raises `MetricError` for lists of different
    lengths, empty ones, anything that is not text, and a pair without references; warns
    (`EmptyPredictionWarning`) of empty predictions.
    """
    for name, given in (("predictions", predictions), ("references", references)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise MetricError(f"{name} should be a list, found {type(given).__name__}.")
    if len(predictions) != len(references):
        raise MetricError(
            f"There are {len(predictions)} predictions but {len(references)} references: "
            "give one entry of references (a text or a list of texts) for each prediction."
        )
    pairs = zip(predictions, references, strict=True)
    return merge_scores(scores for _, scores in score_with(metrics, pairs)).corpus


def score_pairs(
    pairs: Iterable[tuple[str, str | Sequence[str]]],
    metrics: Sequence[str | Metric] = ("wer", "rouge"),
) -> Scores:
    """Score a stream of (prediction, references): corpus and per-image values of every key.

    Raises and warns as `score` does; nothing of the stream is kept but what the metrics keep.
    """
    return merge_scores(scores for _, scores in score_with(metrics, pairs))


def score_with(
    metrics: Sequence[str | Metric], pairs: Iterable[tuple[str, str | Sequence[str]]]
) -> list[tuple[Metric, Scores]]:
    """Score a stream of (prediction, references): each metric with what it computed."""
    chosen = metric_objects(metrics)
    check = PairCheck()
    for prediction, references in pairs:
        prediction, references = check.check(prediction, references)
        for metric in chosen:
            metric.update(prediction, references)
    if not check.count:
        raise MetricError("There is nothing to score: no predictions were given.")
    check.warn(stacklevel=3)
    return [(metric, metric.compute()) for metric in chosen]


def merge_scores(results: Iterable[Scores]) -> Scores:
    """The values of several metrics in one. Raises `MetricError` where two give the same key."""
    merged = Scores({}, {})
    for result in results:
        if doubled := merged.corpus.keys() & result.corpus.keys():
            raise MetricError(
                f"Two of the metrics give a value named {sorted(doubled)[0]!r}: ask for one."
            )
        merged.corpus.update(result.corpus)
        merged.per_image.update(result.per_image)
    return merged


def metric_objects(metrics: Sequence[str | Metric]) -> list[Metric]:
    """Names made fresh metrics. Raises `MetricError` for none, and where two give one key."""
    given = [metrics] if isinstance(metrics, str) else list(metrics)
    if not given:
        raise MetricError("No metric was asked for; `captionkit metrics` lists them.")
    chosen: list[Metric] = []
    for metric in given:
        if isinstance(metric, str):
            metric = get_metric(metric)
        if isinstance(metric, type) or not isinstance(metric, Metric):
            raise MetricError(
                f"A metric should be a name or an object with keys, update and compute, "
                f"found {metric!r}."
            )
        chosen.append(metric)
    keys: dict[str, str] = {}
    for metric in chosen:
        for key in metric.keys:
            if key in keys:
                raise MetricError(
                    f"{keys[key]} and {type(metric).__name__} both give a value named {key!r}: "
                    "ask for one."
                )
            keys[key] = type(metric).__name__
    return chosen
