"""Smooth shapes on a Pillow image, in units of 1/96 of its height: what critters are drawn with."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageOps

Colour = tuple[int, int, int]
Point = tuple[float, float]


def rgb(code: str) -> Colour:
    """`"ff8800"` as a colour."""
    return int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The first colour with a share of the second in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def oval(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> list[Point]:
    """The outline of an ellipse around (x, y), turned clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [
        (x + rx * u * cos - ry * v * sin, y + rx * u * sin + ry * v * cos) for u, v in _circle(40)
    ]


def arc(x: float, y: float, radius: float, start: float, end: float) -> list[Point]:
    """A part of a circle around (x, y), from one angle to another, in degrees clockwise."""
    turns = (math.radians(start + (end - start) * step / 8) for step in range(9))
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]


def capsule(start: Point, end: Point, radius: float) -> list[Point]:
    """The outline of a thick line with round ends."""
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    return [
        (x + radius * math.cos(angle + turn), y + radius * math.sin(angle + turn))
        for (x, y), first in ((start, math.pi / 2), (end, -math.pi / 2))
        for turn in (first + math.pi * step / 10 for step in range(11))
    ]


def rounded(corners: Sequence[Point], softness: float = 0.3) -> list[Point]:
    """A polygon whose corners are cut off along a curve; softness: share of each side."""
    points = []
    for before, corner, after in zip(
        [corners[-1], *corners[:-1]], corners, [*corners[1:], corners[0]], strict=True
    ):
        start, end = _between(corner, before, softness), _between(corner, after, softness)
        for step in range(7):
            t = step / 6
            points.append(_between(_between(start, corner, t), _between(corner, end, t), t))
    return points


def grown(points: Sequence[Point], by: float) -> list[Point]:
    """A clockwise outline moved outwards along its normals."""
    result = []
    for (x0, y0), (x, y), (x1, y1) in zip(
        [points[-1], *points[:-1]], points, [*points[1:], points[0]], strict=True
    ):
        dx, dy = x1 - x0, y1 - y0
        length = math.hypot(dx, dy) or 1.0
        result.append((x + by * dy / length, y - by * dx / length))
    return result


@dataclass
class Pen:
    """Draws on an image in units; `turn` degrees clockwise, `zoom` and `shift` move the paper."""

    image: Image.Image
    centre: Point = (0.0, 0.0)
    turn: float = 0.0
    zoom: float = 1.0
    shift: Point = (0.0, 0.0)

    def __post_init__(self) -> None:
        self._draw = ImageDraw.Draw(self.image)
        self.unit = self.image.height / 96
        scale = self.unit * self.zoom
        self._cos = scale * math.cos(math.radians(self.turn))
        self._sin = scale * math.sin(math.radians(self.turn))
        self._x = (self.centre[0] + self.shift[0]) * self.unit
        self._y = (self.centre[1] + self.shift[1]) * self.unit

    def fill(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill an outline."""
        self._draw.polygon(self._pixels(points), fill=colour)

    def outlined(self, points: Sequence[Point], colour: Colour, edge: Colour, width: float) -> None:
        """Fill an outline, with an edge around it."""
        self.fill(grown(points, width), edge)
        self.fill(points, colour)

    def shaded(self, points: Sequence[Point], light: Colour, middle: Colour, dark: Colour) -> None:
        """Fill an outline as if lit from above on the left."""
        pixels = self._pixels(points)
        left, top = (max(0, math.floor(min(p[i] for p in pixels))) for i in (0, 1))
        right = min(self.image.width, math.ceil(max(p[0] for p in pixels)) + 1)
        bottom = min(self.image.height, math.ceil(max(p[1] for p in pixels)) + 1)
        mask = Image.new("1", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in pixels], fill=1)
        lit = ImageOps.colorize(_light(*mask.size), light, dark, middle, midpoint=110)
        self.image.paste(lit, (left, top), mask)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A line with round joints and ends."""
        pixels = self._pixels(points)
        thickness = max(1, round(width * self.unit * self.zoom))
        radius = (thickness - 1) / 2
        self._draw.line(pixels, fill=colour, width=thickness)
        for x, y in pixels:
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def veil(self, points: Sequence[Point], colour: Colour, opacity: float) -> None:
        """Fill an outline with a see-through colour."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self._pixels(points), fill=round(255 * opacity))
        self.image.paste(colour, mask=mask)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        cos, sin, x0, y0 = self._cos, self._sin, self._x, self._y
        cx, cy = self.centre
        return [
            (x0 + (x - cx) * cos - (y - cy) * sin, y0 + (x - cx) * sin + (y - cy) * cos)
            for x, y in points
        ]


def gradient(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    """An image that goes from one colour at the top to another at the bottom."""
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), top, bottom)


@functools.lru_cache(maxsize=512)
def _light(width: int, height: int) -> Image.Image:
    # dark = lit: colorize() maps black to the light colour
    return Image.radial_gradient("L").crop((80, 90, 236, 246)).resize((width, height))


@functools.cache
def _circle(points: int) -> list[Point]:
    turns = (2 * math.pi * i / points for i in range(points))
    return [(math.cos(turn), math.sin(turn)) for turn in turns]


def _between(start: Point, end: Point, t: float) -> Point:
    return start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t
