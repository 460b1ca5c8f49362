"""captionkit score and compare: files of captions, no model"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from captionkit.cli.form import parse
from captionkit.printable import printable


@dataclasses.dataclass
class _Files:
    metrics: tuple[str, ...] = ("wer", "bleu", "rouge_l", "cider")
    """See `captionkit metrics`."""
    document_frequencies: Path | None = None
    """Precomputed document frequencies for cider and cider_d."""
    json: Path | None = None
    """Write the result as JSON to this file."""
    csv: Path | None = None
    """Write a row an image to this file."""


@dataclasses.dataclass
class _Score(_Files):
    predictions: Annotated[Path, tyro.conf.Positional] = tyro.MISSING
    """COCO results, jsonl, csv, or a txt with a caption a line."""
    references: Annotated[Path | None, tyro.conf.Positional] = None
    """COCO annotations, jsonl or csv; not needed where the predictions carry them."""


def score(arguments: list[str]) -> None:
    """Score a file of captions against references."""
    given = parse(_Score, "score", score.__doc__, arguments)
    from captionkit.score_files import score_files

    _show(
        score_files(given.predictions, given.references, given.metrics, given.document_frequencies),
        given,
    )


@dataclasses.dataclass
class _Compare(_Files):
    a: Annotated[Path, tyro.conf.Positional] = tyro.MISSING
    """Captions of one system, as for `captionkit score`."""
    b: Annotated[Path, tyro.conf.Positional] = tyro.MISSING
    """Captions of the other, for the same images."""
    references: Path | None = None
    """References; default: those that come with a."""
    resamples: int = 10_000
    """Of the bootstrap and of the permutation test."""
    confidence: float = 0.95
    """Of the intervals."""
    seed: int = 0
    """Of the resampling."""


def compare(arguments: list[str]) -> None:
    """Compare two files of captions: differences, intervals, p-values, wins."""
    given = parse(_Compare, "compare", compare.__doc__, arguments)
    from captionkit.compare import compare_files

    _show(
        compare_files(
            given.a, given.b, given.references, given.metrics, given.resamples, given.confidence,
            given.seed, given.document_frequencies,
        ),
        given,
    )  # fmt: skip


def _show(result: Any, given: _Files) -> None:
    print(printable(result.table()))
    if given.json:
        result.write_json(given.json)
    if given.csv:
        result.write_csv(given.csv)
