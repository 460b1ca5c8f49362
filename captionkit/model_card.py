"""The model card: the README.md of a trained model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.report.measures import label

if TYPE_CHECKING:
    from captionkit.evaluation import Prediction
    from captionkit.recipe import Recipe

_SAMPLES = 8
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_MARK = re.compile(r"<!-- written by captionkit ([0-9a-f]{16}) -->\n\Z")


def model_card(
    folder: Path, recipe: Recipe, metrics: dict[str, float], predictions: Sequence[Prediction]
) -> str:
    """What the model is, how to use it, its metrics and sample captions, as Markdown."""
    name = recipe.hub_model_id or folder.resolve().name
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: image-to-text",
        "tags: [image-captioning, captionkit]",
        *([f"base_model: {recipe.model}"] if _HUB_ID.fullmatch(recipe.model or "") else []),
        "---",
        "",
        f"# {_cell(folder.resolve().name)}",
        "",
        f"An image-captioning model, trained from {_code(recipe.model or recipe.encoder or '')} on "
        f"{_cell(recipe.data.dataset or 'local files')} with captionkit.",
        "",
        "```python",
        "import captionkit",
        "",
        f"captioner = captionkit.load({json.dumps(name)})",
        'print(captioner.caption("photo.jpg")[0].text)',
        "```",
        "",
        *(_evaluation(recipe, metrics, predictions) if predictions else ()),
        "The recipe of the run is in `captionkit/recipe.yaml`, its report in "
        "`captionkit/report.html`.",
        "",
    ]
    text = "\n".join(lines)
    return f"{text}\n<!-- written by captionkit {_hash(text)} -->\n"


def is_untouched_card(text: str) -> bool:
    """Whether a README.md is a card of ours that nobody has edited."""
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _hash(text[: mark.start() - 1])


def _evaluation(
    recipe: Recipe, metrics: dict[str, float], predictions: Sequence[Prediction]
) -> list[str]:
    beams = f"{recipe.decoding.num_beams} beams" if recipe.decoding.num_beams > 1 else "greedy"
    rows = [
        (row.image_id, row.prediction, next(iter(row.references), ""))
        for row in predictions[:_SAMPLES]
    ]
    return [
        "## Evaluation",
        "",
        f"On {len(predictions)} held-out images, by generated captions ({beams}, up to "
        f"{recipe.decoding.max_new_tokens} tokens).",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {_cell(label(key))} | {value:.4g} |" for key, value in metrics.items()),
        "",
        "## Sample captions",
        "",
        "| image | generated | a reference |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
        "",
        "![images with captions](captionkit/samples.png)",
        "",
    ]


def _cell(text: str) -> str:
    # captions are data: nothing in them may become markup or leave the table's cell
    for special in "\\`*_[]<>|!#":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', ' ').split())}`"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
