"""Histograms of per-image values: geometry only, the template draws it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from captionkit.report.axes import Axis, make_axis, nice_step, tick_text
from captionkit.report.measures import direction, label, number

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 40, 350, 24, 140
_MOST_BINS = 14
_MOST_TICKS = 7
_LARGEST = 1e12


@dataclass(frozen=True)
class Bar:
    """One bin; `high` is None in a last bin without an upper end."""

    x: float
    y: float
    width: float
    height: float
    low: float
    high: float | None
    text: str


@dataclass(frozen=True)
class Histogram:
    """The bars of one set of values and, where a second is compared, its outline."""

    key: str
    title: str
    direction: str
    bars: tuple[Bar, ...]
    outline: str
    names: tuple[str, str]
    x: Axis
    y: Axis
    x_title: str
    y_title: str
    summary: str


def histogram(
    key: str,
    values: Sequence[float],
    second: Sequence[float] = (),
    *,
    title: str = "",
    names: tuple[str, str] = ("", ""),
    unit: str = "images",
    whole: bool = False,
) -> Histogram | None:
    """Bin one set of values, or two in equal bins as shares.

    Values beyond a million million, which only a damaged file holds, are left out. None where the
    first set is empty.
    """
    values, second = ([v for v in some if abs(v) <= _LARGEST] for some in (values, second))
    if not values:
        return None
    edges, is_open = _edges(key, [*values, *second], whole)
    counts, others = _count(values, edges), _count(second, edges)
    shares = [100 * c / len(values) for c in counts] if second else [float(c) for c in counts]
    other_shares = [100 * c / len(second) for c in others] if second else []
    x = _axis_of(edges, is_open, whole)
    y = make_axis(0, max([*shares, *other_shares]) * 1.02, BOTTOM, TOP, ticks=3, whole=not second)
    bars = []
    for i, share in enumerate(shares):
        low, high = edges[i], None if is_open and i == len(shares) - 1 else edges[i + 1]
        left, right = x.place(edges[i]), x.place(edges[i + 1])
        text = f"{_interval(key, low, high, whole)}: {counts[i]:,}"
        text += f" ({share:.0f} %)" if second else ""
        bars.append(
            Bar(
                left + 0.75,
                y.place(share),
                max(0.5, right - left - 1.5),
                round(BOTTOM - y.place(share), 1),
                low,
                high,
                text,
            )
        )
    summary = _summary(key, values, names[0])
    if second:
        summary += "; " + _summary(key, second, names[1])
    return Histogram(
        key,
        title or label(key),
        direction(key),
        tuple(bars),
        _outline(edges, other_shares, x, y),
        names,
        x,
        y,
        "words" if key == "length" else label(key),
        f"% of {unit}" if second else unit,
        summary,
    )


def _edges(key: str, values: Sequence[float], whole: bool) -> tuple[list[float], bool]:
    """Round bin edges, and whether the last bin takes in everything above."""
    low, high = min(values), max(values)
    if key == "confidence" or key.lower().startswith("rouge"):
        low, high = min(0.0, low), max(100.0, high)
    elif low >= 0 and not whole:
        low, high = 0.0, max(high, 1.0 if high > 0.3 else high)
    ordered = sorted(values)
    most = ordered[math.ceil(0.98 * len(ordered)) - 1]
    is_open = len(values) >= 20 and 0 < 2 * most < ordered[-1]
    if is_open:
        high = most
    if high - low < 1e-9:  # the edges have ten places
        high = low + 1
    step = nice_step((high - low) / _MOST_BINS)
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    # whole values lie on edges, so each needs a bin above its own
    last += (whole and last * step <= high) + is_open
    return [round(k * step, 10) for k in range(first, last + 1)], is_open


def _count(values: Sequence[float], edges: list[float]) -> list[int]:
    """How many values lie in each bin; a value above the last edge is in the last bin."""
    counts = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for value in values:
        place = math.floor((value - edges[0]) / width + 1e-9)
        counts[min(max(place, 0), len(counts) - 1)] += 1
    return counts


def _axis_of(edges: list[float], is_open: bool, whole: bool) -> Axis:
    """Ticks stand at edges of bins; under whole numbers, at the middle of their bins."""
    x = Axis(edges[0], edges[-1], LEFT, RIGHT, ())
    width = edges[1] - edges[0]
    half = (x.place(edges[1]) - LEFT) / 2 if whole else 0
    every = math.ceil(len(edges) / _MOST_TICKS)
    labelled = edges[: -2 if is_open else -1 if whole else None : every]
    ticks = [(round(x.place(edge) + half, 1), tick_text(edge, width * every)) for edge in labelled]
    if is_open:
        last = x.place(edges[-2])
        ticks = [tick for tick in ticks if tick[0] < last - 24]
        ticks.append((last, f"≥ {tick_text(edges[-2], width)}"))
    return Axis(x.low, x.high, LEFT, RIGHT, tuple(ticks))


def _interval(key: str, low: float, high: float | None, whole: bool) -> str:
    unit = " %" if key == "confidence" else ""
    if high is None:
        return f"at least {low:g}{unit}"
    if whole:
        return f"{low:g}" if high - low == 1 else f"{low:g} to {high - 1:g}"
    return f"{low:g} to {high:g}{unit}"


def _outline(edges: list[float], shares: list[float], x: Axis, y: Axis) -> str:
    if not shares:
        return ""
    parts = [f"M{x.place(edges[0]):g} {BOTTOM}"]
    for i, share in enumerate(shares):
        parts.append(f"V{y.place(share):g}H{x.place(edges[i + 1]):g}")
    return "".join(parts) + f"V{BOTTOM}"


def _summary(key: str, values: Sequence[float], name: str) -> str:
    mean, median = statistics.fmean(values), statistics.median(values)
    text = f"median {number(key, median)}, mean {number(key, mean)}"
    return f"{name}: {text}" if name else text
