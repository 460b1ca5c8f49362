"""Pictures that a tiny model learns in seconds."""

from __future__ import annotations

from typing import Any

_COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40),
    "white": (250, 250, 250), "black": (5, 5, 5), "pink": (250, 130, 190), "grey": (128, 128, 128),
}  # fmt: skip


def two_colour_pictures(count: int = 8) -> list[tuple[Any, str]]:
    """(image, caption) pairs: one colour above another; no two captions are the same up to 56."""
    import numpy
    from PIL import Image

    names = list(_COLOURS)
    pairs = []
    for number in range(count):
        top = names[number % 8]
        bottom = names[(number + 1 + number // 8) % 8]
        pixels = numpy.zeros((40, 48, 3), numpy.uint8)
        pixels[:20], pixels[20:] = _COLOURS[top], _COLOURS[bottom]
        # lengths differ, so that batches are padded
        more = ", one above the other" if number % 3 == 0 else ""
        pairs.append((Image.fromarray(pixels), f"{top} on {bottom}{more}"))
    return pairs
