"""Intervals and p-values against scipy, where it has them."""

import numpy as np
import pytest
from scipy import stats

from captionkit.metrics import score_with
from captionkit.metrics.bleu import Bleu
from captionkit.metrics.cider import Cider
from captionkit.metrics.significance import (
    bootstrap_intervals,
    combined,
    permutation_p_values,
    statistics_of,
)
from captionkit.metrics.statistics import CorpusStatistics
from captionkit.metrics.wer import Wer


def means(values):
    values = np.asarray(values, dtype=float)[:, None]
    return CorpusStatistics(values, lambda sums: {"mean": sums[..., 0] / len(values)})


def rates(counts):
    counts = np.asarray(counts, dtype=float)
    return CorpusStatistics(counts, lambda sums: {"rate": sums[..., 0] / sums[..., 1]})


def difference_of_means(a, b, axis=-1):
    return np.mean(b, axis=axis) - np.mean(a, axis=axis)


@pytest.mark.parametrize("seed", range(4))
def test_exact_permutation_test_of_means(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal([[0.0], [0.4 * seed]], size=(2, 9))
    ours = permutation_p_values(means(a), means(b), permutations=1000)
    scipy = stats.permutation_test(
        (a, b), difference_of_means, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert ours["mean"] == pytest.approx(scipy.pvalue)


def test_random_permutation_test_of_means():
    rng = np.random.default_rng(5)
    a, b = rng.normal([[0.0], [0.3]], size=(2, 60))
    ours = permutation_p_values(means(a), means(b), permutations=40_000)["mean"]
    scipy = stats.permutation_test(
        (a, b), difference_of_means, permutation_type="samples", n_resamples=20_000, rng=rng
    )
    assert ours == pytest.approx(scipy.pvalue, abs=0.01)
    assert 0.005 < ours < 0.5


def test_bootstrap_interval_of_means():
    rng = np.random.default_rng(6)
    a, b = rng.normal([[0.0], [0.3]], size=(2, 80))
    low, high = bootstrap_intervals(means(a), means(b), resamples=40_000)["mean"]
    scipy = stats.bootstrap(
        (a, b), difference_of_means, paired=True, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    assert (low, high) == pytest.approx((scipy.low, scipy.high), abs=0.01)


def test_bootstrap_interval_of_a_ratio_of_sums():
    rng = np.random.default_rng(7)
    words = rng.integers(4, 15, 50)
    a, b = (np.stack([rng.binomial(words, p), words], axis=1) for p in (0.4, 0.3))
    low, high = bootstrap_intervals(rates(a), rates(b), resamples=40_000, confidence=0.9)["rate"]

    def statistic(edits_a, edits_b, total, axis=-1):
        return (edits_b.sum(axis) - edits_a.sum(axis)) / total.sum(axis)

    scipy = stats.bootstrap(
        (a[:, 0], b[:, 0], words), statistic, paired=True, method="percentile",
        n_resamples=20_000, confidence_level=0.9, rng=rng,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((scipy.low, scipy.high), abs=0.005)


def test_no_difference():
    values = means([0.1, 0.7, 0.3, 0.2, 0.2, 0.9])
    assert bootstrap_intervals(values, values, resamples=100) == {"mean": (0.0, 0.0)}
    assert permutation_p_values(values, values) == {"mean": 1.0}


def test_same_seed_same_figures(captions):
    a = statistics_of(*score_with([Wer()], captions)[0])
    b = statistics_of(*score_with([Wer()], [(r[0], r) for _, r in captions])[0])
    assert bootstrap_intervals(a, b, 500) == bootstrap_intervals(a, b, 500)
    assert bootstrap_intervals(a, b, 500) != bootstrap_intervals(a, b, 500, seed=1)
    assert permutation_p_values(a, b, 500) == permutation_p_values(a, b, 500)


def test_the_counts_of_a_resample_give_the_metric_of_its_pairs(captions):
    drawn = np.random.default_rng(0).integers(0, len(captions), 40)
    pairs = [captions[i] for i in drawn]
    for metric in (Bleu, Wer):
        statistics = statistics_of(*score_with([metric()], captions)[0])
        values = statistics.values(statistics.per_image[drawn].sum(axis=0))
        expected = score_with([metric()], pairs)[0][1].corpus
        assert {key: float(value) for key, value in values.items()} == pytest.approx(expected)


def test_several_metrics_share_their_resamples(captions):
    results = score_with([Bleu(), Cider()], captions)
    together = combined([statistics_of(*result) for result in results])
    alone = statistics_of(*results[1])
    assert set(together.values(together.per_image.sum(axis=0))) == {*Bleu.keys, "cider"}
    intervals = bootstrap_intervals(together, together, resamples=50)
    assert intervals["cider"] == bootstrap_intervals(alone, alone, resamples=50)["cider"]
