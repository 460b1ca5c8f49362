"""A dataset source: drawn flags of two or three bands, each with two captions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from captionkit.data.dataset import CaptionDataset

if TYPE_CHECKING:
    from captionkit.recipe import DataConfig

COLOURS = {
    "red": (200, 40, 40), "green": (40, 150, 60), "blue": (40, 70, 190),
    "yellow": (240, 210, 60), "white": (245, 245, 245), "black": (20, 20, 20),
}  # fmt: skip
_WIDTH, _HEIGHT = 48, 36


def load(config: DataConfig, split: str) -> CaptionDataset | None:
    """Drawn flags of two or three bands, 150 to train on and 30 held out; nothing is downloaded."""
    if split not in ("train", "validation"):
        return None  # captionkit says that there is no such split
    return CaptionDataset.from_rows(_rows(split), f"flags ({split})")


def flags() -> list[tuple[str, ...]]:
    """The bands of every flag, from the top; neighbours differ."""
    two = product(COLOURS, repeat=2)
    three = product(COLOURS, repeat=3)
    return [bands for bands in (*two, *three) if all(a != b for a, b in pairwise(bands))]


def captions(bands: tuple[str, ...]) -> tuple[str, str]:
    """Two wordings, which name the bands from the top."""
    *upper, last = bands
    return (
        f"a flag of {', '.join(upper)} and {last}",
        f"{' above '.join(bands)}",
    )


def _rows(split: str) -> Iterator[dict[str, Any]]:
    for number, bands in enumerate(flags()):
        if (number % 6 == 5) == (split == "validation"):
            yield {
                "image": _png(bands),  # bytes stay encoded until the image is used
                "captions": list(captions(bands)),
                "image_id": "-".join(bands),
            }


def _png(bands: tuple[str, ...]) -> bytes:
    from PIL import Image  # imported when flags are drawn: listing the sources stays quick

    image = Image.new("RGB", (_WIDTH, _HEIGHT))
    height = _HEIGHT // len(bands)
    for number, colour in enumerate(bands):
        image.paste(COLOURS[colour], (0, number * height, _WIDTH, (number + 1) * height))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
