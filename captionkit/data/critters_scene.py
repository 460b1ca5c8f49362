"""The backgrounds that critters stand before: a meadow, a beach, snow and the night."""

from __future__ import annotations

import functools
import math
from random import Random

from PIL import Image

from captionkit.data.critters_ink import Colour, Pen, Point, capsule, gradient, mix, oval, rgb

VARIANTS = 6
"""Different pictures of each background."""
WIDTH = 1.2
"""Width of a scene relative to its height, so that its part that is seen can be moved."""

_WHITE = rgb("ffffff")


@functools.lru_cache(maxsize=32)
def scene(background: str, variant: int, pixels: int) -> Image.Image:
    """The background as an RGB image of `(WIDTH * pixels, pixels)`; not to be drawn on."""
    rng = Random(1000 * variant + len(background))
    return {"meadow": _meadow, "beach": _beach, "snow": _snow, "night": _night}[background](
        pixels, rng
    )


def _meadow(pixels: int, rng: Random) -> Image.Image:
    pen = _sky(pixels, "a9dcff", "eefaff")
    _glow(pen, 12 + 88 * rng.random(), 13, 8, rgb("fff1a6"))
    for _ in range(3):
        _cloud(pen, 110 * rng.random(), 14 + 20 * rng.random(), 3.2 + 1.6 * rng.random(), _WHITE)
    _hills(pen, 58, 5, rgb("c9ec9f"), rng)
    _hills(pen, 70, 3, rgb("a8dc74"), rng)
    for _ in range(22):
        x, y = 116 * rng.random(), 76 + 19 * rng.random()
        for lean in (-1.3, 0, 1.3):
            pen.line([(x, y), (x + lean, y - 3)], rgb("83c256"), 0.8)
    petals = [rgb(code) for code in ("ffffff", "fff3b0", "ffd1e3")]
    for i in range(12):
        _flower(pen, 116 * rng.random(), 73 + 21 * rng.random(), petals[i % 3])
    return pen.image


def _beach(pixels: int, rng: Random) -> Image.Image:
    pen = _sky(pixels, "ffe3bd", "fff7ea")
    _glow(pen, 12 + 88 * rng.random(), 20, 9, rgb("fff7d2"))
    pen.image.paste(
        gradient((pen.image.width, round(24 * pen.unit)), rgb("35b8c8"), rgb("8be3df")),
        (0, round(44 * pen.unit)),
    )
    for _ in range(9):
        x, y = 116 * rng.random(), 47 + 14 * rng.random()
        pen.fill(capsule((x, y), (x + 4 + 6 * rng.random(), y), 0.5), rgb("d3f5f2"))
    sail = 10 + 90 * rng.random()
    pen.fill([(sail, 32), (sail + 7, 43), (sail, 43)], _WHITE)
    pen.fill([(sail - 1, 34), (sail - 1, 43), (sail - 6, 43)], rgb("ffd9cf"))
    pen.fill([(sail - 7, 44), (sail + 8, 44), (sail + 5, 47), (sail - 5, 47)], rgb("b06a4c"))
    _hills(pen, 65, 2.2, _WHITE, rng, shift=2.0)
    _hills(pen, 67, 2.2, rgb("f7e2b4"), rng, shift=2.0)
    for _ in range(40):
        pen.fill(oval(116 * rng.random(), 72 + 24 * rng.random(), 0.7, 0.5), rgb("e0c48c"))
    for _ in range(3):
        _starfish(pen, 116 * rng.random(), 76 + 17 * rng.random(), rgb("f2997f"))
    return pen.image


def _snow(pixels: int, rng: Random) -> Image.Image:
    pen = _sky(pixels, "9fb6d3", "e2eaf3")
    _hills(pen, 56, 4, rgb("d3deeb"), rng)
    for i in range(6):
        _pine(pen, 20 * i + 9 * rng.random(), 66 + 3 * rng.random(), 20 + 12 * rng.random())
    _hills(pen, 67, 3, rgb("f8fbff"), rng)
    for _ in range(8):
        x, y = 116 * rng.random(), 76 + 18 * rng.random()
        pen.fill(oval(x, y, 6 + 4 * rng.random(), 1.0), rgb("e3ecf7"))
    for _ in range(46):
        radius = 0.7 + 1.0 * rng.random()
        pen.fill(oval(116 * rng.random(), 70 * rng.random(), radius, radius), _WHITE)
    return pen.image


def _night(pixels: int, rng: Random) -> Image.Image:
    pen = _sky(pixels, "141a48", "3a3578")
    x, y = 14 + 84 * rng.random(), 15 + 4 * rng.random()
    for radius, share in ((15, 0.05), (12, 0.08)):
        pen.veil(oval(x, y, radius, radius), rgb("fff0b8"), share)
    _crescent(pen, x, y, 8.5, rgb("ffeeb0"))
    for i in range(44):
        star, size = (116 * rng.random(), 64 * rng.random()), 0.5 + 0.5 * rng.random()
        pen.fill(oval(*star, size, size), rgb("d9dcff"))
        if i % 4 == 0:
            _sparkle(pen, *star, 2.6 + 1.2 * rng.random(), rgb("fff6cf"))
    _hills(pen, 62, 5, rgb("4b4890"), rng)
    _hills(pen, 71, 3, rgb("403e7e"), rng)
    for _ in range(7):  # fireflies
        x, y = 116 * rng.random(), 68 + 24 * rng.random()
        pen.fill(oval(x, y, 1.6, 1.6), rgb("777a7c"))
        pen.fill(oval(x, y, 0.8, 0.8), rgb("f4f7a1"))
    return pen.image


def _sky(pixels: int, top: str, bottom: str) -> Pen:
    image = gradient((round(WIDTH * pixels), round(0.75 * pixels)), rgb(top), rgb(bottom))
    full = Image.new("RGB", (image.width, pixels), rgb(bottom))
    full.paste(image)
    return Pen(full)


def _hills(
    pen: Pen, y: float, height: float, colour: Colour, rng: Random, shift: float | None = None
) -> None:
    phase = 2 * math.pi * rng.random() if shift is None else shift
    ridge: list[Point] = [
        (x, y + height * 0.5 * (math.sin(x / 14 + phase) + math.sin(x / 31 + 2 * phase)))
        for x in range(0, 120, 2)
    ]
    pen.fill([*ridge, (120, 97), (0, 97)], colour)
    pen.line(ridge, mix(colour, _WHITE, 0.15), 0.9)


def _glow(pen: Pen, x: float, y: float, radius: float, colour: Colour) -> None:
    for growth, opacity in ((1.9, 0.25), (1.45, 0.4), (1.0, 1.0)):
        pen.veil(oval(x, y, growth * radius, growth * radius), colour, opacity)


def _cloud(pen: Pen, x: float, y: float, size: float, colour: Colour) -> None:
    for dx, dy, scale in ((0, 0, 1.0), (1.5, -0.6, 1.25), (3.0, 0, 0.95), (-1.2, 0.3, 0.7)):
        pen.fill(oval(x + dx * size, y + dy * size, scale * size, 0.85 * scale * size), colour)


def _flower(pen: Pen, x: float, y: float, colour: Colour) -> None:
    for turn in range(5):
        angle = 2 * math.pi * turn / 5
        pen.fill(oval(x + 1.3 * math.cos(angle), y + 1.3 * math.sin(angle), 1.0, 1.0), colour)
    pen.fill(oval(x, y, 0.9, 0.9), rgb("f5b83d"))


def _starfish(pen: Pen, x: float, y: float, colour: Colour) -> None:
    for turn in range(5):
        angle = 2 * math.pi * turn / 5 + 0.4
        pen.fill(capsule((x, y), (x + 3 * math.cos(angle), y + 2.4 * math.sin(angle)), 0.9), colour)


def _pine(pen: Pen, x: float, y: float, height: float) -> None:
    for step in range(3):
        top, half = y - height * (1 - 0.27 * step), height * (0.16 + 0.06 * step)
        pen.fill(
            [(x, top), (x + half, top + 0.46 * height), (x - half, top + 0.46 * height)],
            rgb("5f8f93"),
        )
        pen.fill(
            [
                (x, top),
                (x + 0.4 * half, top + 0.18 * height),
                (x - 0.4 * half, top + 0.18 * height),
            ],
            rgb("f4f9ff"),
        )


def _crescent(pen: Pen, x: float, y: float, radius: float, colour: Colour) -> None:
    # one half of a circle keeps its round edge, the other is pulled in
    turn = math.radians(-35)
    edge = []
    for u, v in oval(0, 0, radius, radius):
        u = u if u < 0 else -0.35 * u
        edge.append(
            (
                x + u * math.cos(turn) - v * math.sin(turn),
                y + u * math.sin(turn) + v * math.cos(turn),
            )
        )
    pen.fill(edge, colour)


def _sparkle(pen: Pen, x: float, y: float, size: float, colour: Colour) -> None:
    thin = 0.2 * size
    pen.fill(
        [
            (x, y - size), (x + thin, y - thin), (x + size, y), (x + thin, y + thin),
            (x, y + size), (x - thin, y + thin), (x - size, y), (x - thin, y - thin),
        ],
        colour,
    )  # fmt: skip
