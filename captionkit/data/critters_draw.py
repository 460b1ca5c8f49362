"""How a critter is drawn: shapes in units of 1/96 of the picture, from the back to the front.

Drawn at three times the size and reduced, so that edges are smooth. Everything that differs
between two pictures of the same critter comes from a variation number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from PIL import Image

from captionkit.data.critters_features import EARS, EDGE, EYES, INK, MOUTHS, TAILS, WHITE, cheeks
from captionkit.data.critters_ink import Colour, Pen, Point, arc, capsule, mix, oval, rgb
from captionkit.data.critters_scene import VARIANTS, WIDTH, scene

if TYPE_CHECKING:
    from captionkit.data.critters import Critter

COLOURS = {  # in the light and in the shade
    "orange": (rgb("ff8a2b"), rgb("e0591a")),
    "yellow": (rgb("ffdb3d"), rgb("f0ae1f")),
    "green": (rgb("55bf5d"), rgb("2d8f56")),
    "blue": (rgb("4193f5"), rgb("2a62c8")),
    "purple": (rgb("9f61e6"), rgb("7038b8")),
    "pink": (rgb("ff94c2"), rgb("e8609a")),
}
SHAPES = {  # half the width, half the height, how square, how much wider at the bottom
    "chubby": (25.5, 22.0, 2.0, 0.14),
    "tall": (17.0, 24.5, 2.6, 0.12),
    "square": (22.0, 22.0, 7.0, 0.0),
}
TOP = 31.0  # of every body, so that ears and eyes are looked for in one place
GROUND = {"sitting": 2.0, "waving": 6.0, "jumping": 14.0}  # below the body

_OVERSAMPLING = 3


def draw(critter: Critter, size: int = 96, variation: int = 0) -> Image.Image:
    """A picture of the critter, RGB, `(size, size)`.

    variation: seeds what differs between two pictures of one critter (place, size, tint, mouth,
    scenery).
    """
    rng = Random(variation)
    pixels = _OVERSAMPLING * size
    scenery = scene(critter.background, int(VARIANTS * rng.random()), pixels)
    left = int((WIDTH - 1) * pixels * rng.random())
    image = scenery.crop((left, 0, left + pixels, pixels))
    pen = Pen(
        image,
        centre=(45.5, 50),
        turn=_between(rng, -2.5, 2.5),
        zoom=_between(rng, 0.96, 1.03),
        shift=(_between(rng, -1.2, 1.2), _between(rng, -1, 1)),
    )
    body = _body(critter, rng)
    _shadow(pen, critter, body)
    TAILS[critter.tail](pen, body)
    if critter.ears != "floppy":
        EARS[critter.ears](pen, body)
    _raised_arms(pen, critter, body)
    _legs(pen, critter, body)
    _torso(pen, body)
    if critter.ears == "floppy":
        EARS[critter.ears](pen, body)
    _resting_arms(pen, critter, body)
    _soles(pen, critter, body)
    EYES[critter.eyes](pen, body)
    cheeks(pen, body)
    MOUTHS[int(len(MOUTHS) * rng.random())](pen, body.x, body.eye_y + 6.5)
    return image.reduce(_OVERSAMPLING)


@dataclass(frozen=True)
class Body:
    """Where the body and the eyes are, and the colours in use."""

    x: float
    y: float
    half_width: float
    half_height: float
    outline: list[Point]
    eye_y: float
    eye_dx: float  # of each eye from the middle
    tail: Point
    main: Colour
    light: Colour
    dark: Colour
    edge: Colour
    second: Colour
    second_edge: Colour

    def at(self, across: float, down: float) -> Point:
        """A point by its place in the body: -1 to 1 from left to right and from top to bottom."""
        return self.x + across * self.half_width, self.y + down * self.half_height


def _body(critter: Critter, rng: Random) -> Body:
    half_width, half_height, power, widening = SHAPES[critter.shape]
    half_width *= _between(rng, 0.96, 1.04)
    x, y = 45.5, TOP + half_height
    outline = []
    for u, v in oval(0, 0, 1, 1):  # a superellipse
        across, down = (math.copysign(abs(w) ** (2 / power), w) for w in (u, v))
        outline.append((x + half_width * across * (1 + widening * down), y + half_height * down))
    main, dark = (_tinted(colour, rng) for colour in COLOURS[critter.colour])
    second, second_dark = (_tinted(colour, rng) for colour in COLOURS[critter.belly])
    return Body(
        x=x,
        y=y,
        half_width=half_width,
        half_height=half_height,
        outline=outline,
        eye_y=TOP + 15,
        eye_dx=8.4 if critter.shape == "tall" else 10.0,
        tail=(x + 20 + 0.45 * half_width, TOP + 32),
        main=main,
        light=mix(main, WHITE, 0.42),
        dark=dark,
        edge=mix(dark, INK, 0.6),
        second=second,
        second_edge=mix(second_dark, INK, 0.6),
    )


def _tinted(colour: Colour, rng: Random) -> Colour:
    return mix(colour, WHITE if rng.random() < 0.5 else INK, 0.05 * rng.random())


def _shadow(pen: Pen, critter: Critter, body: Body) -> None:
    width, height = (0.75, 2.2) if critter.pose == "jumping" else (1.05, 3.4)
    y = body.y + body.half_height + GROUND[critter.pose]
    pen.veil(oval(body.x, y, width * body.half_width, height), INK, 0.36)


def _raised_arms(pen: Pen, critter: Critter, body: Body) -> None:
    for side in {"sitting": (), "waving": (-1,), "jumping": (-1, 1)}[critter.pose]:
        # below floppy ears, which would hide it
        x, y = body.at(side, 0.0 if critter.ears == "floppy" else -0.48)
        hand = (x + side * 10.5, y)
        pen.outlined(capsule(body.at(side * 0.7, 0.15), hand, 4.6), body.main, body.edge, EDGE)
        pen.fill(oval(*hand, 3.4, 3.4), body.second)
        if critter.pose == "waving":
            for gap in (7.6, 10.6):
                pen.line(arc(*hand, gap, 165, 250), INK, 2.2)
                pen.line(arc(*hand, gap, 165, 250), WHITE, 1.4)


def _legs(pen: Pen, critter: Critter, body: Body) -> None:
    if critter.pose == "sitting":
        return
    for side in (-1, 1):
        if critter.pose == "jumping":
            hip, foot, turn = body.at(side * 0.5, 0.85), body.at(side * 0.72, 1.17), side * -38
        else:
            hip, foot, turn = body.at(side * 0.42, 0.9), body.at(side * 0.46, 1.16), 0
        pen.outlined(capsule(hip, foot, 4.2), body.dark, body.edge, EDGE)
        foot = (foot[0] + side, foot[1])
        pen.outlined(oval(*foot, 7.8, 5.0, turn), body.second, body.second_edge, EDGE)


def _torso(pen: Pen, body: Body) -> None:
    pen.outlined(body.outline, body.main, body.edge, EDGE)
    pen.shaded(body.outline, body.light, body.main, body.dark)
    pen.fill(oval(*body.at(0, 0.54), 0.66 * body.half_width, 0.42 * body.half_height), body.second)
    pen.fill(oval(*body.at(-0.52, -0.74), 3.8, 1.7, -35), mix(body.light, WHITE, 0.6))


def _resting_arms(pen: Pen, critter: Critter, body: Body) -> None:
    for side in {"sitting": (-1, 1), "waving": (1,), "jumping": ()}[critter.pose]:
        arm = capsule(body.at(side * 0.86, 0.14), body.at(side * 0.74, 0.5), 3.9)
        pen.outlined(arm, body.main, body.edge, EDGE)


def _soles(pen: Pen, critter: Critter, body: Body) -> None:
    if critter.pose != "sitting":
        return
    for side in (-1, 1):
        x, y = body.at(side * 0.68, 0.86)
        pen.outlined(oval(x, y, 7.8, 8.2, side * 14), body.main, body.edge, EDGE)
        pen.fill(oval(x, y + 2, 4.5, 4.0), body.second)
        for toe in (-1, 0, 1):
            pen.fill(oval(x + 3.8 * toe, y - 4.2 + 1.2 * abs(toe), 1.5, 1.6), body.second)


def _between(rng: Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()
