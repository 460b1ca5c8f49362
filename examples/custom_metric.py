"""A metric of your own: the share of captions that name a colour which a reference names too.

    python examples/custom_metric.py --model git-critters --dataset critters

A metric is any object with `keys`, `higher_is_better`, `update` and `compute`, and `score` takes it
as it is. With an entry point of the group `captionkit.metrics` it has a name as well, by which
recipes, `evaluate` and the command line know it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import ClassVar

import captionkit
from captionkit.types import Scores

COLOURS = {
    "black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow",
}  # fmt: skip


class ColourRecall:
    """Of the colours that the references name, the share that the caption names.

    The value over the corpus divides all found by all there are; images whose references name no
    colour count for nothing there, and are 1 by themselves.
    """

    keys: ClassVar[tuple[str, ...]] = ("colour_recall",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self) -> None:
        self.found: list[int] = []
        self.named: list[int] = []

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        wanted = set().union(*map(colours_in, references))
        self.found.append(len(wanted & colours_in(prediction)))
        self.named.append(len(wanted))

    def compute(self) -> Scores:
        """The value over all pairs, and for each."""
        each = [f / n if n else 1.0 for f, n in zip(self.found, self.named, strict=True)]
        total = sum(self.named)
        corpus = sum(self.found) / total if total else 1.0
        return Scores({"colour_recall": corpus}, {"colour_recall": each})


def colours_in(text: str) -> set[str]:
    """The colours that a text names."""
    return COLOURS & set(re.findall(r"[a-z]+", text.lower()))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="a folder or a hub id")
    parser.add_argument("--dataset", default="", help="see `captionkit datasets`")
    parser.add_argument("--data-dir", help="a folder of images")
    given = parser.parse_args(arguments)

    result = captionkit.evaluate(
        given.model, given.dataset, data_dir=given.data_dir, metrics=["wer"]
    )
    predictions = [row.prediction for row in result.predictions]
    references = [row.references for row in result.predictions]
    own = captionkit.score(predictions, references, metrics=[ColourRecall()])
    for name, value in {**result.metrics, **own}.items():
        print(f"{name:<14} {value:.4f}")
    return own


if __name__ == "__main__":
    main()
