"""A picture of sample images with their captions, before training and after."""

from __future__ import annotations

import math
import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from PIL import Image

_INK, _MUTED, _ACCENT = "#1d1f1c", "#6a6e66", "#0b6b5d"
_CELL = 3.1  # inches
_LINE = 0.19  # inches a line of text
_CHARACTERS = 42  # a line


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
    cells = [
        _lines(caption, before[i] if before else None, references[i] if references else None)
        for i, caption in enumerate(captions)
    ]
    figure = _draw(images, cells)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # a caption may hold signs that the font lacks; they are drawn as boxes
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(draft, format="png", dpi=150)
        os.replace(draft, path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from None
    return path


def _lines(caption: str, before: str | None, reference: str | None) -> list[tuple[str, str, str]]:
    """(text, colour, weight) of each line under an image."""
    lines = []
    parts = [("before: ", before, _MUTED, "normal")] if before is not None else []
    parts.append(("after: " if before is not None else "", caption, _ACCENT, "bold"))
    if reference is not None:
        parts.append(("reference: ", reference, _MUTED, "normal"))
    for prefix, text, colour, weight in parts:
        whole = prefix + (" ".join((text or "").split()) or "(empty)")
        wrapped = textwrap.wrap(whole, _CHARACTERS, max_lines=4, placeholder=" …")
        lines += [(line, colour, weight) for line in wrapped]
    return lines


def _draw(images: Sequence[Image.Image], cells: list[list[tuple[str, str, str]]]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(images), 4 if len(images) != 6 else 3)
    columns = 2 if len(images) == 4 else columns
    rows = math.ceil(len(images) / columns)
    # each row is as tall as its longest text
    texts = [
        max(len(cell) for cell in cells[r * columns : (r + 1) * columns]) * _LINE + 0.3
        for r in range(rows)
    ]
    margin = 0.25
    width = columns * (_CELL + margin) + margin
    height = sum(_CELL + text for text in texts) + margin
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    top = height - margin
    for r in range(rows):
        for c, i in enumerate(range(r * columns, min((r + 1) * columns, len(images)))):
            left = margin + c * (_CELL + margin)
            box = (left / width, (top - _CELL) / height, _CELL / width, _CELL / height)
            axes = figure.add_axes(box)
            axes.imshow(images[i].convert("RGB"), interpolation="antialiased")
            axes.set_anchor("S")
            axes.set_axis_off()
            for k, (text, colour, weight) in enumerate(cells[i]):
                y = (top - _CELL - 0.1 - k * _LINE) / height
                figure.text(
                    left / width, y, text, va="top", color=colour, weight=weight, size=9.5,
                    parse_math=False,
                )  # fmt: skip
        top -= _CELL + texts[r]
    return figure
