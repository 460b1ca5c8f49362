"""A picture of sample images with their captions, before training and after."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageFont

from captionkit.errors import ConfigError, OutputError
from captionkit.whole_files import whole_file

_MUTED, _ACCENT = "#5d625c", "#0b6b5d"
_CELL, _GAP = 3.1, 0.3  # inches: an image's side, and the space around it
_LINE, _PART = 0.19, 0.07  # inches: a line of text, and the space between two captions
_SIZE = 9.5  # points
_PIXELS = 465  # an image's side in the file
_MOST_LINES = 5


@dataclass(frozen=True)
class Line:
    """A line of text under an image, so many inches below it."""

    text: str
    colour: str
    weight: str
    below: float


def write_grid(
    path: Path,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    before: Sequence[str] | None = None,
    references: Sequence[str] | None = None,
) -> Path:
    """Write a PNG of 1 to 16 (or more) images, each with its wrapped captions, and return its path.

    `before` are the captions of the untrained model. Raises ConfigError where the lists differ in
    length or are empty, OutputError where the file cannot be written.
    """
    lists = {"captions": captions, "before": before, "references": references}
    for name, values in lists.items():
        if values is not None and len(values) != len(images):
            raise ConfigError(f"{len(images)} images, but {len(values)} {name}: give one for each.")
    if not images:
        raise ConfigError("A grid needs at least one image.")
    figure = _draw(
        images,
        [
            _wrapped(caption, before[i] if before else None, references[i] if references else None)
            for i, caption in enumerate(captions)
        ],
    )
    try:
        with whole_file(path) as draft, warnings.catch_warnings():
            # a caption may hold signs that the font lacks; they are drawn as boxes
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(draft, format="png", dpi=150)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from None
    return path


def _wrapped(caption: str, before: str | None, reference: str | None) -> list[Line]:
    """The lines under one image."""
    parts = [("before: ", before, _MUTED, "normal")] if before is not None else []
    parts.append(("after: " if before is not None else "", caption, _ACCENT, "bold"))
    if reference is not None:
        parts.append(("reference: ", reference, _MUTED, "normal"))
    lines, below = [], 0.1
    for prefix, text, colour, weight in parts:
        for line in _wrap(prefix + (" ".join((text or "").split()) or "(empty)"), weight):
            lines.append(Line(line, colour, weight, below))
            below += _LINE
        below += _PART
    return lines


def _wrap(text: str, weight: str) -> list[str]:
    """Lines no wider than an image, measured in the font that they are drawn in."""
    from matplotlib.font_manager import FontProperties, findfont

    font = ImageFont.truetype(findfont(FontProperties(weight=weight)), size=100)
    most = 100 * _CELL * 72 / _SIZE
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= most:
            lines[-1] = longer
        elif len(lines) == _MOST_LINES:
            lines[-1] += " …"
            break
        else:
            lines.append(word)
    return [_cut(line, most / max(font.getlength(line), 1)) for line in lines]


def _cut(line: str, share: float) -> str:
    """A line whose one word is too long, cut to a share of it."""
    return line if share > 0.92 else line[: int(len(line) * share) - 1] + "…"


def _draw(images: Sequence[Image.Image], cells: list[list[Line]]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = {4: 2, 5: 3, 6: 3, 9: 3}.get(len(images), min(len(images), 4))
    rows = [range(k, min(k + columns, len(images))) for k in range(0, len(images), columns)]
    # each row is as tall as its longest text
    texts = [max(cells[i][-1].below for i in row) + _LINE + _GAP for row in rows]
    width = columns * (_CELL + _GAP) + _GAP
    height = sum(_CELL + text for text in texts) + _GAP
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    top = height - _GAP
    for row, text in zip(rows, texts, strict=True):
        for column, i in enumerate(row):
            left = _GAP + column * (_CELL + _GAP)
            box = (left / width, (top - _CELL) / height, _CELL / width, _CELL / height)
            axes = figure.add_axes(box)
            axes.imshow(_small(images[i]), interpolation="bicubic")
            axes.set_anchor("S")
            axes.set_axis_off()
            for line in cells[i]:
                # parse_math: a caption may hold dollar signs
                figure.text(
                    left / width,
                    (top - _CELL - line.below) / height,
                    line.text,
                    va="top",
                    color=line.colour,
                    weight=line.weight,
                    size=_SIZE,
                    parse_math=False,
                )
        top -= _CELL + text
    return figure


def _small(image: Image.Image) -> Image.Image:
    image = image.convert("RGB")
    image.thumbnail((2 * _PIXELS, 2 * _PIXELS))
    return image
