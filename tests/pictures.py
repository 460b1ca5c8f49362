"""Pictures with captions that a tiny model learns; the same for every backend."""

from __future__ import annotations

import numpy as np
from PIL import Image

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40),
    "white": (250, 250, 250), "black": (5, 5, 5), "pink": (250, 130, 190), "grey": (128, 128, 128),
}  # fmt: skip


def sixteen_pairs() -> list[tuple[Image.Image, list[str]]]:
    """Pictures, half one colour over another, with two captions each."""
    names = list(COLOURS)
    result = []
    for i in range(16):
        top, bottom = names[i % 8], names[(i * 3 + 1 + i // 8) % 8]
        pixels = np.zeros((40, 48, 3), np.uint8)
        pixels[:20], pixels[20:] = COLOURS[top], COLOURS[bottom]
        result.append(
            (
                Image.fromarray(pixels),
                [f"{top} above {bottom}.", f"{bottom} below {top}, a picture"],
            )
        )
    return result
