"""Scoring a file of predictions against a file of references."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captionkit.caption_tables import (
    CaptionTable,
    has_references,
    read_predictions,
    read_references,
)
from captionkit.checkpoints import write_atomically
from captionkit.errors import DataError, OutputError
from captionkit.metrics import score_pairs
from captionkit.printable import csv_cell
from captionkit.registry import get_metric
from captionkit.types import Metric, Scores


@dataclass(frozen=True)
class FileScores:
    """The scores of a file of predictions, image by image in the order of the file.

    unscored: images that have references but no prediction; they count for nothing.
    """

    image_ids: list[str]
    predictions: list[str]
    scores: Scores
    unscored: int = 0

    def table(self) -> str:
        """The corpus values as text."""
        width = max(map(len, self.scores.corpus))
        lines = [f"{key:<{width}}  {value:.6g}" for key, value in self.scores.corpus.items()]
        images = f"{len(self.image_ids)} images"
        if self.unscored:
            images += f"; {self.unscored} more have references but no prediction"
        return "\n".join([*lines, "", images])

    def write_json(self, path: Path) -> None:
        """Write the corpus values and the number of images."""
        values = {"images": len(self.image_ids), "unscored": self.unscored}
        text = json.dumps({"metrics": self.scores.corpus, **values}, indent=2)
        write_output(path, text + "\n")

    def write_csv(self, path: Path) -> None:
        """Write a row an image: its id, the prediction, its value of each key."""
        keys = list(self.scores.per_image)
        texts = [
            [csv_cell(text) for text in column] for column in (self.image_ids, self.predictions)
        ]
        columns = [*texts, *self.scores.per_image.values()]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image_id", "prediction", *keys])
        writer.writerows(zip(*columns, strict=True))
        write_output(path, text.getvalue())


def score_files(
    predictions: Path,
    references: Path | None = None,
    metrics: Sequence[str] = ("wer", "rouge"),
    document_frequencies: Path | None = None,
) -> FileScores:
    """Score a file of predictions.

    predictions: COCO results, jsonl (also a run's predictions.jsonl), csv, tsv, or txt.
    references: COCO annotations or the same kinds; may be left out where the predictions carry
    theirs. document_frequencies: a file for `cider` and `cider_d`. Images are matched by id, files
    without ids by position. Raises `DataError` and `MetricError`.
    """
    table = read_predictions(predictions)
    truth = read_references(references or own_references(predictions))
    matched = match_references(table, truth)
    texts = {name: captions[0] for name, captions in table.captions.items()}
    scores = score_pairs(
        ((text, matched[name]) for name, text in texts.items()),
        [metric_for_files(name, document_frequencies) for name in metrics],
    )
    unscored = len(truth.captions) - len(texts)
    return FileScores(list(texts), list(texts.values()), scores, unscored)


def match_references(predictions: CaptionTable, references: CaptionTable) -> dict[str, list[str]]:
    """The references of each predicted image. Raises `DataError` where one has none."""
    if predictions.positional or references.positional:
        _check_positions(predictions, references)
        return dict(zip(predictions.captions, references.captions.values(), strict=True))
    names = {name: references.find(name) for name in predictions.captions}
    missing = [name for name, known in names.items() if known is None]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(names)} images of {predictions.path} have no references "
            f"in {references.path}: {_first(missing)}. There the images are called "
            f"{_first(list(references.captions))}."
        )
    known_names = [name for name in names.values() if name is not None]
    if len(set(known_names)) < len(known_names):
        raise DataError(f"{predictions.path} names some images twice, by id and by file name.")
    return {name: references.captions[known] for name, known in names.items() if known is not None}


def metric_for_files(name: str, document_frequencies: Path | None = None) -> Metric:
    """A fresh metric of that name, CIDEr with the document frequencies."""
    if document_frequencies and name in ("cider", "cider_d"):
        return get_metric(name, document_frequencies=document_frequencies)
    return get_metric(name)


def write_output(path: Path, text: str) -> None:
    """Write a file that the user asked for. Raises `OutputError`."""
    try:
        write_atomically(path, text)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from None


def own_references(predictions: Path) -> Path:
    """The file itself, where its rows carry their references. Raises `DataError`."""
    if not has_references(predictions):
        raise DataError(
            f"{predictions} holds no references: give a file of them as well, for example COCO's "
            "captions_val2014.json."
        )
    return predictions


def _check_positions(predictions: CaptionTable, references: CaptionTable) -> None:
    if predictions.positional != references.positional:
        with_ids, without = (
            (references, predictions) if predictions.positional else (predictions, references)
        )
        raise DataError(
            f"{with_ids.path} names its images and {without.path} does not, so they cannot be "
            "matched: give both an image id, or neither."
        )
    if len(predictions.captions) != len(references.captions):
        raise DataError(
            f"{predictions.path} has {len(predictions.captions)} captions and {references.path} "
            f"{len(references.captions)}; without image ids they are matched by position, so the "
            "numbers should be the same."
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
