"""The parts by which critters are told apart: ears, eyes and tails; and their mouths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from captionkit.data.critters_ink import Pen, Point, arc, mix, oval, rgb, rounded

if TYPE_CHECKING:
    from captionkit.data.critters_draw import Body

INK = rgb("33294a")
WHITE = rgb("ffffff")
EDGE = 1.1
"""Width of the line around every part."""


# Tails: to the right, behind the body


def _curly_tail(pen: Pen, body: Body) -> None:
    x, y = body.tail
    spiral: list[Point] = [body.at(0.7, 0.85)]
    for step in range(30):
        angle = math.radians(105 - 16 * step)
        radius = 11.5 - 0.27 * step
        spiral.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    pen.line(spiral, body.edge, 3.8 + 2 * EDGE)
    pen.line(spiral, body.main, 3.8)
    pen.line(spiral[-12:], body.second, 3.8)


def _fluffy_tail(pen: Pen, body: Body) -> None:
    x, y = body.tail
    puffs = [(x - 7, y + 10, 7), (x + 3, y + 8, 8), (x + 5, y - 2, 9), (x + 3, y - 13, 8)]
    puffs += [(x - 4, y, 9), (x - 3, y - 10, 8)]
    for px, py, radius in puffs:
        pen.fill(oval(px, py, radius + EDGE, radius + EDGE), body.edge)
    for px, py, radius in puffs:
        pen.fill(oval(px, py, radius, radius), body.main)
    for tip in (
        oval(x + 5.5, y - 3, 7, 7),
        oval(x + 3, y - 13, 6.5, 6.5),
        oval(x - 2, y - 11, 6, 6),
    ):
        pen.fill(tip, body.second)


def _zigzag_tail(pen: Pen, body: Body) -> None:
    x, y = body.tail
    steps = ((-14, 13), (3, 12), (-5, 2), (9, 0), (1, -9), (12, -14))
    bolt = [(x + dx, y + dy) for dx, dy in steps]
    pen.line(bolt, body.edge, 4.6 + 2 * EDGE)
    pen.line(bolt, body.main, 4.6)
    pen.line(bolt[-3:], body.second, 4.6)


# Ears: behind the body, but for floppy ones


def _round_ears(pen: Pen, body: Body) -> None:
    for side in (-1, 1):
        x, y = body.at(side * 0.72, -0.84)
        pen.outlined(oval(x, y - 1, 9.5, 9.5), body.main, body.edge, EDGE)
        pen.fill(oval(x, y - 1.5, 6.2, 6.2), body.second)


def _pointy_ears(pen: Pen, body: Body) -> None:
    for side in (-1, 1):
        x, y = body.x + side * (0.62 * body.half_width - 2), body.at(0, -0.72)[1]
        ear = [(x - side * 8, y), (x + side * 6, y - 23), (x + side * 8, y + 3)]
        pen.outlined(rounded(ear[::side], 0.12), body.main, body.edge, EDGE)
        inner = [(x - side * 3.5, y), (x + side * 5, y - 17), (x + side * 5.5, y)]
        pen.fill(rounded(inner, 0.12), body.second)


def _long_ears(pen: Pen, body: Body) -> None:
    for side in (-1, 1):
        x, y = body.at(side * 0.42, -0.95)
        pen.outlined(oval(x + side * 1.5, y - 10, 5.8, 15.5, side * 9), body.main, body.edge, EDGE)
        pen.fill(oval(x + side * 1.6, y - 10.5, 3.4, 11.8, side * 9), body.second)


def _floppy_ears(pen: Pen, body: Body) -> None:
    for side in (-1, 1):
        x, y = body.at(side * 0.96, -0.66)
        pen.outlined(oval(x, y, 6.6, 13, -side * 38), body.dark, body.edge, EDGE)
        pen.fill(oval(x + side * 3.4, y + 4.2, 4.6, 7, -side * 38), body.second)


# Eyes


def _big_eyes(pen: Pen, body: Body) -> None:
    for side in (-1, 1):
        x, y = body.x + side * body.eye_dx, body.eye_y
        pen.outlined(oval(x, y, 6.4, 7.4), WHITE, body.edge, 0.9)
        x -= 0.8 * side
        pen.fill(oval(x, y + 0.6, 4.6, 5.6), INK)
        pen.fill(oval(x - 1.6, y - 1.8, 1.9, 2.1), WHITE)
        pen.fill(oval(x + 1.8, y + 2.8, 1.0, 1.0), WHITE)


def _tiny_eyes(pen: Pen, body: Body) -> None:
    for side in (-1, 1):
        x, y = body.x + side * body.eye_dx, body.eye_y + 1
        pen.fill(oval(x, y, 2.7, 3.1), INK)
        pen.fill(oval(x - 0.8, y - 1.1, 0.9, 0.9), WHITE)


def _sleepy_eyes(pen: Pen, body: Body) -> None:
    for side in (-1, 1):
        lid = arc(body.x + side * body.eye_dx, body.eye_y - 2.5, 5.6, 15, 165)
        pen.line(lid, INK, 2.2)
    x, y = body.at(1, -1.1)
    for dx, dy, size in ((2, -3, 2.4), (8, -10, 3.4)):
        corners = ((-1, -1), (1, -1), (-1, 1), (1, 1))
        letter = [(x + dx + size * u, y + dy + size * v) for u, v in corners]
        pen.line(letter, INK, 2.6)
        pen.line(letter, WHITE, 1.3)


# Mouths and cheeks: no caption speaks of them


def _smile(pen: Pen, x: float, y: float) -> None:
    pen.line(arc(x, y - 1.5, 3.2, 20, 160), INK, 1.3)


def _laugh(pen: Pen, x: float, y: float) -> None:
    pen.fill(rounded([(x - 3.8, y - 0.5), (x + 3.8, y - 0.5), (x, y + 6)], 0.3), rgb("8c2f4d"))
    pen.fill(oval(x, y + 2.8, 1.5, 1.1), rgb("ff7d96"))


def _cat_mouth(pen: Pen, x: float, y: float) -> None:
    for side in (-1, 1):
        pen.line(arc(x + side * 2, y - 0.5, 2, 0, 180), INK, 1.2)


def _surprise(pen: Pen, x: float, y: float) -> None:
    pen.fill(oval(x, y + 1, 1.9, 2.2), rgb("8c2f4d"))


def cheeks(pen: Pen, body: Body) -> None:
    """A blush beside each eye."""
    blush = mix(body.light, rgb("ff6a92"), 0.72)
    for side in (-1, 1):
        x, y = body.x + side * (body.eye_dx + 4.5), body.eye_y + 8.5
        pen.fill(oval(x, y, 3.0, 1.9), blush)


TAILS: dict[str, Callable[[Pen, Body], None]] = {
    "curly": _curly_tail,
    "fluffy": _fluffy_tail,
    "zigzag": _zigzag_tail,
}
EARS: dict[str, Callable[[Pen, Body], None]] = {
    "round": _round_ears,
    "pointy": _pointy_ears,
    "long": _long_ears,
    "floppy": _floppy_ears,
}
EYES: dict[str, Callable[[Pen, Body], None]] = {
    "big": _big_eyes,
    "tiny": _tiny_eyes,
    "sleepy": _sleepy_eyes,
}
MOUTHS: tuple[Callable[[Pen, float, float], None], ...] = (_smile, _laugh, _cat_mouth, _surprise)
