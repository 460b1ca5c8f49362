"""Axes of our own SVG drawings: round tick values and their places in user units."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from captionkit.report.measures import scientific


@dataclass(frozen=True)
class Axis:
    """A linear axis from value `low` at place `start` to value `high` at place `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]  # (place, text)

    def place(self, value: float) -> float:
        """Where a value lies."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def make_axis(
    low: float, high: float, start: float, end: float, *, ticks: int = 4, whole: bool = False
) -> Axis:
    """An axis that covers low to high exactly, with about so many round tick values."""
    if not high > low:
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    step = nice_step((high - low) / ticks)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    axis = Axis(low, high, start, end, ())
    values = [k * step for k in range(first, last + 1)]
    return Axis(low, high, start, end, tuple((axis.place(v), tick_text(v, step)) for v in values))


def round_range(low: float, high: float, ticks: int = 4) -> tuple[float, float]:
    """A range with round ends that covers low to high; it starts at 0 where that costs little."""
    if low >= 0 and low < 0.6 * high:
        low = 0.0
    least = sys.float_info.min  # what lies closer together has no round step between
    if not (high - low) / ticks > least:
        return (low - abs(low) / 2, low + abs(low) / 2) if abs(low) > least else (0.0, 1.0)
    step = nice_step((high - low) / ticks)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def nice_step(step: float) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is no less than `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))


def tick_text(value: float, step: float) -> str:
    """A tick's value with no more digits than the step needs."""
    if abs(value) < step * 1e-6:
        return "0"
    if step < 1e-3 or step >= 1e6:
        return scientific(value)
    if step >= 1000:
        return f"{value / 1000:g}k"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals or step < 10:
        # 2.5 needs one digit more than its power of ten
        scaled = step * 10**decimals
        decimals += abs(scaled - round(scaled)) > 1e-6
    return f"{value:.{decimals}f}".replace("-", "−")
