"""The history of a run, or of two, as small line charts: geometry only, the template draws it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from captionkit.report.axes import Axis, make_axis, round_range
from captionkit.report.measures import (
    better,
    direction,
    in_order,
    label,
    meaning,
    number,
    plain_key,
)

Point: TypeAlias = tuple[float, float]  # step, value
History: TypeAlias = Sequence[dict[str, float]]

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 26, 168
_NOT_DRAWN = ("step", "epoch")
_SUPPORTING = ("learning_rate", "grad_norm", "images_per_second")


@dataclass(frozen=True)
class Line:
    """One line; `style` is a CSS class, `hover` rows of [x, y, step, text]."""

    name: str
    style: str
    path: str
    dots: tuple[tuple[float, float], ...]
    hover: list[list[Any]]


@dataclass(frozen=True)
class Curve:
    """One chart."""

    title: str
    direction: str
    x: Axis
    y: Axis
    y_title: str
    lines: tuple[Line, ...]
    summary: str  # what a reader who cannot see it should know

    @property
    def last_step(self) -> str:
        """The last step with a value."""
        return str(max((line.hover[-1] for line in self.lines), key=lambda point: point[0])[2])

    @property
    def hover(self) -> list[dict[str, Any]]:
        """What the script shows under the pointer."""
        return [{"name": line.name, "points": line.hover} for line in self.lines]


def run_curves(history: History) -> list[Curve]:
    """The charts of one run: losses together, each family of metrics together, then the rest."""
    keys = _keys(history)
    groups: dict[str, list[str]] = {}
    for key in in_order(keys):
        # rouge1, rouge2 and rougeL share a chart; so do loss and eval_loss
        family = re.match(r"rouge|bleu", plain_key(key), flags=re.IGNORECASE)
        groups.setdefault(family[0].lower() if family else plain_key(key), []).append(key)
    curves = []
    for family_name, members in sorted(groups.items(), key=lambda item: _place(item[1])):
        members.sort(key=lambda key: (key.startswith("eval_"), key))
        styles = ["b", "a"] if members == ["loss", "eval_loss"] else ["a", "b", "a dash", "b dash"]
        lines = [
            (_line_name(key, members), styles[i % 4], _points(history, key))
            for i, key in enumerate(members)
        ]
        title = label(members[0] if len(members) == 1 else family_name)
        # under the title ROUGE, the lines are called 1, 2 and L
        lines = [(n.removeprefix(f"{title}-") or n, style, points) for n, style, points in lines]
        same = len({plain_key(key) for key in members}) == 1
        curves.append(draw(title, members[-1], lines, meaning(members[-1]) if same else title))
    return [curve for curve in curves if curve]


def compared_curves(histories: Sequence[tuple[str, History]]) -> list[Curve]:
    """A chart a logged value, with a line a run."""
    keys = in_order(key for _, history in histories for key in _keys(history))
    curves = []
    for key in sorted(keys, key=lambda key: _place([key])):
        lines = [
            (name, f"run-{letter}", _points(history, key))
            for letter, (name, history) in zip("ab", histories, strict=True)
        ]
        plain = label(key)
        if plain_key(key) == "loss":
            plain = "Validation loss" if key == "eval_loss" else "Training loss"
        curves.append(draw(plain, key, [line for line in lines if line[2]], meaning(key)))
    return [curve for curve in curves if curve]


def draw(
    title: str, key: str, named: Sequence[tuple[str, str, list[Point]]], y_title: str
) -> Curve | None:
    """Lines of (name, style, points) on common axes; None where no value is finite."""
    finite = [p for _, _, points in named for p in points if math.isfinite(p[1])]
    if not finite:
        return None
    steps, values = [p[0] for p in finite], [p[1] for p in finite]
    x = make_axis(min(steps), max(steps), LEFT, RIGHT, ticks=5, whole=True)
    y = make_axis(*round_range(min(values), max(values)), BOTTOM, TOP)
    lines = tuple(
        _line(name, style, points, key, x, y)
        for name, style, points in named
        if any(math.isfinite(value) for _, value in points)
    )
    summary = "; ".join(
        _summary(name if len(named) > 1 else title, key, points) for name, _, points in named
    )
    return Curve(title, direction(key), x, y, y_title or title, lines, summary)


def not_finite(history: History) -> list[str]:
    """A sentence for each logged value that was NaN or infinite."""
    sentences = []
    for key in _keys(history):
        bad = [step for step, value in _points(history, key) if not math.isfinite(value)]
        if bad:
            times = "once" if len(bad) == 1 else f"{len(bad)} times"
            name = "the training loss" if key == "loss" else key
            sentences.append(
                f"{name[0].upper()}{name[1:]} was not a finite number {times}, first at step "
                f"{bad[0]:,.0f}. A lower learning rate, gradient clipping or fp32 often helps."
            )
    return sentences


def sparkline(history: History, key: str) -> tuple[str, str]:
    """A path in a 72 x 20 box for a headline card, and its story: "at first 0.93"."""
    points = [p for p in _points(history, f"eval_{key}") if math.isfinite(p[1])]
    if len(points) < 2:
        return "", ""
    steps, values = [p[0] for p in points], [p[1] for p in points]
    x = make_axis(min(steps), max(steps), 1, 71)
    y = make_axis(min(values), max(values), 18, 2)
    places = [(x.place(step), y.place(value)) for step, value in _thin(points, 60)]
    return _path(places), f"at first {number(key, values[0])}"


def evaluation_table(
    history: History, most: int = 60
) -> tuple[list[str], list[list[str]], int] | None:
    """Header, rows, and how many rows there are in all: evaluations, or else what was logged."""
    rows = [row for row in history if any(key.startswith("eval_") for key in row)] or list(history)
    if not rows:
        return None
    keys = in_order(key for row in rows for key in row if key not in _NOT_DRAWN)
    chosen = rows if len(rows) <= most else _spread(rows, most)
    header = ["Step", "Epoch"] + [_column(key, keys) for key in keys]
    body = [
        [f"{_step(row, i):,.0f}", f"{row['epoch']:.2f}" if "epoch" in row else "–"]
        + [number(key, row.get(key)) for key in keys]
        for i, row in enumerate(chosen)
    ]
    return header, body, len(rows)


def _keys(history: History) -> list[str]:
    return list(dict.fromkeys(key for row in history for key in row if key not in _NOT_DRAWN))


def _place(members: Sequence[str]) -> tuple[int, int]:
    """Loss first, then metrics, then what supports them."""
    if any(plain_key(key) == "loss" for key in members):
        return (0, members[0].startswith("eval_"))
    if any(key in _SUPPORTING for key in members):
        return (2, _SUPPORTING.index(members[0]) if members[0] in _SUPPORTING else 0)
    return (1 if any(better(k) and k.startswith("eval_") for k in members) else 3, 0)


def _points(history: History, key: str) -> list[Point]:
    """In the order of steps; a step that was run again after a resume counts as it was last."""
    found = {_step(row, i): float(row[key]) for i, row in enumerate(history) if key in row}
    return sorted(found.items())


def _step(row: dict[str, float], index: int) -> float:
    step = row.get("step", index)
    return step if math.isfinite(step) else index


def _line_name(key: str, members: Sequence[str]) -> str:
    if plain_key(key) == "loss":
        return "validation" if key == "eval_loss" else "training"
    both = f"eval_{plain_key(key)}" in members and plain_key(key) in members
    return label(key) + (" (validation)" if both and key.startswith("eval_") else "")


def _column(key: str, keys: Sequence[str]) -> str:
    if plain_key(key) == "loss" and "loss" in keys and "eval_loss" in keys:
        return "Validation loss" if key == "eval_loss" else "Training loss"
    return label(key)


def _line(name: str, style: str, points: list[Point], key: str, x: Axis, y: Axis) -> Line:
    thin = _thin(points, 2 * (RIGHT - LEFT) // 3)
    places = [
        (x.place(step), y.place(value) if math.isfinite(value) else math.nan)
        for step, value in thin
    ]
    seen = [p for p in places if not math.isnan(p[1])]
    few = len(seen) <= 24
    hover = [
        [px, py, f"{step:,.0f}", number(key, value)]
        for (px, py), (step, value) in zip(places, thin, strict=True)
        if not math.isnan(py)
    ]
    return Line(name, style, _path(places), tuple(seen) if few else (), hover)


def _path(places: Sequence[tuple[float, float]]) -> str:
    """SVG path data; the line breaks where a value is not finite."""
    parts, pen_down = [], False
    for px, py in places:
        if math.isnan(py):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{px:g} {py:g}")
        pen_down = True
    return "".join(parts)


def _thin(points: list[Point], most: int) -> list[Point]:
    """About `most` points; of each stretch the lowest and the highest stay, so spikes do."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        low = min(stretch, key=lambda p: p[1] if math.isfinite(p[1]) else math.inf)
        high = max(stretch, key=lambda p: p[1] if math.isfinite(p[1]) else -math.inf)
        kept += sorted({low, high})
    return sorted({points[0], *kept, points[-1]})


def _spread(rows: Sequence[Any], most: int) -> list[Any]:
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _summary(name: str, key: str, points: list[Point]) -> str:
    finite = [p for p in points if math.isfinite(p[1])]
    if not finite:
        return f"{name}: no finite value"
    (first, start), (last, end) = finite[0], finite[-1]
    if len(finite) == 1:
        return f"{name}: {number(key, start)} at step {first:,.0f}"
    extremes = [p[1] for p in finite]
    best = min(extremes) if better(key) == "lower" else max(extremes)
    word = {"lower": "lowest", "higher": "highest"}.get(better(key) or "", "highest")
    return (
        f"{name}: {number(key, start)} at step {first:,.0f}, {number(key, end)} at step "
        f"{last:,.0f}, {word} {number(key, best)}"
    )
