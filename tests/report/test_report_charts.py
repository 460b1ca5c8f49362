"""Axes, curves and histograms, against numpy and by their own definitions."""

from __future__ import annotations

import math
import re

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captionkit.report.axes import make_axis, round_range, tick_text
from captionkit.report.curves import (
    BOTTOM,
    TOP,
    compared_curves,
    evaluation_table,
    run_curves,
    sparkline,
)
from captionkit.report.histograms import histogram

finite = st.floats(-1e9, 1e9).map(lambda x: round(x, 6))


@given(finite, finite)
def test_ticks_are_inside_rising_and_evenly_spaced(a, b):
    low, high = round_range(min(a, b), max(a, b))
    axis = make_axis(low, high, 0, 1000)
    slack = 1e-8 * (axis.high - axis.low)
    assert axis.low <= min(a, b) + slack
    assert axis.high >= max(a, b) - slack
    places = [place for place, _ in axis.ticks]
    assert 2 <= len(places) <= 11
    assert all(0 <= place <= 1000 for place in places)
    gaps = numpy.diff(places)
    assert (gaps > 0).all()
    assert numpy.ptp(gaps) <= 0.3


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0.25, 0.25, "0.25"),
        (0.5, 0.25, "0.50"),
        (2.5e-5, 2.5e-5, "2.5e-5"),
        (1e-4, 2.5e-5, "1e-4"),
        (0.001, 2.5e-4, "1e-3"),
        (1500, 500, "1500"),
        (25000, 5000, "25k"),
        (-2.5, 2.5, "−2.5"),
        (1e-12, 0.1, "0"),
        (3e7, 1e7, "3e7"),
    ],
)
def test_tick_texts_are_short(value, step, text):
    assert tick_text(value, step) == text


def test_losses_share_a_chart_and_so_do_the_rouges():
    keys = ("loss", "eval_loss", "eval_wer", "eval_rouge1", "eval_rougeL", "learning_rate")
    history = [{"step": s, "epoch": s, **dict.fromkeys(keys, float(s))} for s in (1, 2, 3)]
    charts = {chart.title: [line.name for line in chart.lines] for chart in run_curves(history)}
    assert charts == {
        "Loss": ["training", "validation"],
        "WER": ["WER"],
        "ROUGE": ["1", "L"],
        "Learning rate": ["Learning rate"],
    }


def test_points_lie_where_their_values_are():
    history = [{"step": s, "loss": v} for s, v in ((0, 4.0), (50, 1.0), (100, 0.0))]
    (chart,) = run_curves(history)
    assert chart.y.low == 0
    assert chart.y.high == 4
    assert chart.lines[0].dots == (
        (46, TOP),
        ((46 + 350) / 2, BOTTOM - (BOTTOM - TOP) / 4),
        (350, BOTTOM),
    )
    assert chart.last_step == "100"


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=3000))
@example([0.0, 5e-324])
@example([5e-324])
def test_a_long_history_is_thinned_but_keeps_its_extremes(values):
    history = [{"step": i, "loss": v} for i, v in enumerate(values)]
    (chart,) = run_curves(history)
    ys = [point[1] for point in chart.lines[0].hover]
    assert len(ys) <= 420
    assert min(ys) == pytest.approx(chart.y.place(max(values)), abs=0.11)
    assert max(ys) == pytest.approx(chart.y.place(min(values)), abs=0.11)


def test_values_that_are_not_finite_break_the_line():
    values = [1.0, math.nan, 2.0, math.inf, 3.0]
    (chart,) = run_curves([{"step": i, "loss": v} for i, v in enumerate(values)])
    assert re.sub(r"[\d. ]", "", chart.lines[0].path) == "MMM"
    assert not run_curves([{"step": 1, "loss": math.nan}])


def test_a_step_that_was_run_again_counts_as_it_was_last():
    history = [{"step": s, "loss": v} for s, v in ((1, 5.0), (2, 4.0), (2, 3.0), (3, 1.0))]
    (chart,) = run_curves(history)
    assert [point[3] for point in chart.lines[0].hover] == ["5.000", "3.000", "1.000"]


def test_a_single_point_is_a_dot():
    (chart,) = run_curves([{"step": 10, "eval_wer": 0.5}])
    assert len(chart.lines[0].dots) == 1


def test_two_runs_have_a_line_each_where_they_have_values():
    a = [{"step": s, "loss": 1.0 / s} for s in (1, 2)]
    b = [{"step": s, "loss": 2.0 / s, "eval_wer": 0.1} for s in (1, 2, 3)]
    charts = {
        c.title: [line.name for line in c.lines] for c in compared_curves([("x", a), ("y", b)])
    }
    assert charts == {"Training loss": ["x", "y"], "WER": ["y"]}


def test_the_table_holds_evaluations_and_is_thinned_evenly():
    history = [{"step": s, "loss": 1.0} | ({"eval_loss": 2.0} if s % 2 else {}) for s in range(400)]
    header, rows, total = evaluation_table(history)
    assert header == ["Step", "Epoch", "Training loss", "Validation loss"]
    assert total == 200
    assert len(rows) == 60
    assert (rows[0][0], rows[-1][0]) == ("1", "399")
    assert evaluation_table([]) is None


def test_a_sparkline_needs_two_evaluations():
    assert sparkline([{"step": 1, "eval_wer": 1.0}], "wer") == ("", "")
    path, story = sparkline([{"step": s, "eval_wer": 1 / s} for s in (1, 2, 4)], "wer")
    assert path.startswith("M1 2L")
    assert story == "at first 1.00"


values_0_100 = st.lists(st.floats(0, 100), min_size=1, max_size=200)


@given(values_0_100)
def test_histograms_count_as_numpy_does(values):
    values = [round(value, 3) for value in values]
    chart = histogram("rougeL", values)
    edges = [bar.low for bar in chart.bars] + [100.0]
    counts, _ = numpy.histogram(values, edges)
    assert [int(bar.text.rsplit(": ")[1]) for bar in chart.bars] == counts.tolist()
    tallest = max(chart.bars, key=lambda bar: bar.height)
    assert tallest.height == max(bar.height for bar in chart.bars) <= BOTTOM


@given(st.lists(st.integers(0, 60), min_size=1, max_size=100))
def test_whole_numbers_are_counted_one_by_one(values):
    chart = histogram("length", values, whole=True)
    counted = [int(bar.text.rsplit(": ")[1]) for bar in chart.bars]
    assert sum(counted) == len(values)
    for bar, count in zip(chart.bars, counted):
        upper = math.inf if bar.high is None else bar.high
        assert count == sum(bar.low <= value < upper for value in values)


def test_an_outlier_does_not_squash_the_rest():
    chart = histogram("wer", [i / 100 for i in range(100)] + [40.0])
    assert chart.bars[-1].high is None
    assert chart.bars[-1].low <= 1.1
    assert "at least" in chart.bars[-1].text
    assert chart.x.ticks[-1][1].startswith("≥")


def test_no_bin_is_open_without_an_outlier():
    chart = histogram("bleu4", [i / 60 for i in range(30)])
    assert chart.bars[-1].high == 1.0


def test_two_sets_are_compared_as_shares():
    chart = histogram("wer", [0.0] * 10, [0.0, 1.0], names=("A", "B"))
    assert chart.bars[0].text.endswith("10 (100 %)")
    assert chart.outline
    assert chart.y_title == "% of images"


@pytest.mark.parametrize("strange", [1e-320, -1e-320, 1e15, -1e300, 1.7e308, float("inf"), 1e-10])
@pytest.mark.parametrize("key", ["wer", "confidence"])
def test_values_that_no_picture_can_show(key, strange):
    for values in ([strange], [strange, 0.5], [strange, -1.7e308, 1e12]):
        chart = histogram(key, values, values[:1])
        shown = [value for value in values if abs(value) <= 1e12]
        counts = [int(re.findall(r": (\d+)", bar.text)[0]) for bar in chart.bars] if chart else []
        assert sum(counts) == len(shown)


def test_no_values_no_histogram():
    assert histogram("wer", []) is None
