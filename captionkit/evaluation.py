"""Captioning a dataset and scoring it: the one evaluation loop, for every backend."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.checkpoints import write_atomically
from captionkit.errors import DataError, ImageError
from captionkit.metrics import metric_objects
from captionkit.processes import connected
from captionkit.recipe import Decoding

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.types import Captioner, Example, Metric


@dataclass
class Prediction:
    """What was generated for one image, and how it scored."""

    image_id: str
    prediction: str
    score: float
    references: tuple[str, ...]
    metrics: dict[str, float]
    before: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returns.

    metrics: one number a name; `loss` is the mean negative log-likelihood of a target token, in
        nats, over all references.
    predictions: one an image that could be read, in the order of the dataset.
    skipped: (image_id, reason) of the images that could not be read.
    """

    metrics: dict[str, float]
    predictions: list[Prediction]
    skipped: list[tuple[str, str]]


def evaluate_captioner(
    captioner: Captioner,
    dataset: CaptionDataset,
    metrics: Sequence[str | Metric] = ("wer", "rouge"),
    decoding: Decoding | None = None,
    batch_size: int = 32,
    on_bad_image: str = "stop",
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Caption every image of a dataset and score the captions against all its references.

    Nothing but text and one number an image is kept from a batch. A dataset without captions is
    captioned where no metrics are asked for. Raises `ImageError` for an image that cannot be read,
    unless `on_bad_image` is "skip".
    """
    if metrics:
        dataset.require_captions()
    scorers = metric_objects(metrics) if metrics else []
    settings = dataclasses.asdict(decoding or Decoding()) | {"num_return_sequences": 1}
    part = _Part()
    try:
        _caption_share(captioner, dataset, settings, batch_size, on_bad_image, on_batch, part)
    except ImageError as error:
        part.error = str(error)
    whole = _together(part)
    if connected().count > 1:
        on_batch(len(dataset), len(dataset))
    if not whole.rows:
        raise DataError(f"None of the {len(dataset)} images of {dataset.name} could be read.")
    predictions, image_ids = [], dataset.image_ids
    for position, text, score in whole.rows:
        references = dataset.captions_of(position)
        for scorer in scorers:
            scorer.update(text, references)
        predictions.append(Prediction(image_ids[position], text, score, references, {}))
    values = {"loss": whole.loss_sum / whole.tokens} if dataset.has_captions else {}
    for scorer in scorers:
        scores = scorer.compute()
        values |= scores.corpus
        for key, per_image in scores.per_image.items():
            for prediction, value in zip(predictions, per_image, strict=True):
                prediction.metrics[key] = value
    return Evaluation(values, predictions, [(name, reason) for _, name, reason in whole.skipped])


@dataclass
class _Part:
    """What one process found: text and numbers.

    rows: (position in the dataset, caption, score). skipped: (position of the batch, image_id,
    reason). error: why an image stopped it.
    """

    rows: list[tuple[int, str, float]] = field(default_factory=list)
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    loss_sum: float = 0.0
    tokens: int = 0
    error: str | None = None


def _caption_share(
    captioner: Captioner,
    dataset: CaptionDataset,
    settings: dict[str, Any],
    batch_size: int,
    on_bad_image: str,
    on_batch: Callable[[int, int], None],
    part: _Part,
) -> None:
    """Caption every n-th batch, where there are n processes, into `part`."""
    processes = connected()
    starts = range(0, len(dataset), batch_size)
    for start in starts[processes.index :: processes.count]:
        indices = range(start, min(start + batch_size, len(dataset)))
        skipped: list[tuple[str, str]] = []
        batch = [dataset[i] for i in indices]
        examples, encoded = _encoded(captioner, batch, on_bad_image, skipped)
        part.skipped += [(start, *one) for one in skipped]
        if examples:
            captions = captioner.caption(encoded, **settings)
            if dataset.has_captions:
                nll, count = captioner.loss(encoded, [example.captions for example in examples])
                part.loss_sum, part.tokens = part.loss_sum + nll, part.tokens + count
            position = dict(zip(map(id, batch), indices, strict=True))
            for example, caption in zip(examples, captions, strict=True):
                part.rows.append((position[id(example)], caption.text, caption.score))
        on_batch(indices[-1] + 1, len(dataset))


def _together(part: _Part) -> _Part:
    """The parts of all processes as one, in the order of the dataset. Raises ImageError."""
    parts = [part]
    if connected().count > 1:
        told = connected().gather(json.dumps(dataclasses.asdict(part)).encode())
        parts = [_Part(**json.loads(one)) for one in told]
    for error in (part.error for part in parts if part.error):
        raise ImageError(error)
    return _Part(
        sorted((row for part in parts for row in part.rows), key=operator.itemgetter(0)),
        sorted((row for part in parts for row in part.skipped), key=operator.itemgetter(0)),
        math.fsum(part.loss_sum for part in parts),
        sum(part.tokens for part in parts),
    )


def _encoded(
    captioner: Captioner,
    examples: list[Example],
    on_bad_image: str,
    skipped: list[tuple[str, str]],
) -> tuple[list[Example], Any]:
    """Those examples whose image can be read, and their images as the captioner encoded them."""
    examples, images = _usable(examples, lambda example: example.image, on_bad_image, skipped)
    if not images:
        return [], None
    try:
        return examples, captioner.encode(images)
    except ImageError:  # decoded, but refused by this model's preprocessing
        image_of = dict(zip(map(id, examples), images, strict=True))
        examples, _ = _usable(
            examples, lambda e: captioner.encode([image_of[id(e)]]), on_bad_image, skipped
        )
    images = [image_of[id(example)] for example in examples]
    return examples, captioner.encode(images) if images else None


def _usable(
    examples: list[Example],
    use: Callable[[Example], Any],
    on_bad_image: str,
    skipped: list[tuple[str, str]],
) -> tuple[list[Example], list[Any]]:
    good, results = [], []
    for example in examples:
        try:
            results.append(use(example))
        except ImageError as error:
            reason = str(error)
            if example.image_id not in reason:
                reason = f"Image {example.image_id!r}: {reason}"
            if on_bad_image != "skip":
                raise ImageError(
                    f"{reason.rstrip('.')}. on_bad_image='skip' goes on without it."
                ) from None
            skipped.append((example.image_id, reason))
        else:
            good.append(example)
    return good, results


class Evaluator:
    """What a backend calls, with the weights of the moment, at each evaluation of a run.

    It keeps the predictions of the last evaluation and of the best, so that nothing is captioned
    again when training ends.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        metrics: Sequence[str],
        decoding: Decoding,
        batch_size: int,
        on_bad_image: str,
        folder: Path,
        on_batch: Callable[[int, int], None] = lambda done, total: None,
        on_skip: Callable[[str, str], None] = lambda image_id, reason: None,
    ):
        self.dataset = dataset
        self.metrics = tuple(metrics)
        self.decoding = decoding
        self.batch_size = batch_size
        self.on_bad_image = on_bad_image
        self.folder = folder  # of the run, the one called captionkit/
        self.on_batch = on_batch
        self.on_skip = on_skip
        self.last: Evaluation | None = None

    def __call__(self, captioner: Captioner) -> dict[str, float]:
        """Evaluate; returns `loss` and the metrics by their names."""
        evaluation = evaluate_captioner(
            captioner, self.dataset, self.metrics, self.decoding, self.batch_size,
            self.on_bad_image, self.on_batch,
        )  # fmt: skip
        for image_id, reason in evaluation.skipped:
            self.on_skip(image_id, reason)
        self.last = evaluation
        return evaluation.metrics

    def preview(self, captioner: Captioner, count: int = 8) -> None:
        """Caption a few images before the first step, to show beside those after training."""
        chosen = [i * len(self.dataset) // count for i in range(min(count, len(self.dataset)))]
        examples, encoded = _encoded(captioner, [self.dataset[i] for i in chosen], "skip", [])
        if not examples:
            return
        settings = dataclasses.asdict(self.decoding) | {"num_return_sequences": 1}
        captions = captioner.caption(encoded, **settings)
        before = {e.image_id: c.text for e, c in zip(examples, captions, strict=True)}
        write_atomically(
            self.folder / "before.json", json.dumps(before, ensure_ascii=False, indent=1)
        )

    def keep(self) -> None:
        """Make the last evaluation the run's: its metrics and predictions are written."""
        if self.last is not None:
            write_evaluation(self.folder, self.last)


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write metrics.json and predictions.jsonl."""
    before_file = folder / "before.json"
    before = json.loads(before_file.read_text(encoding="utf-8")) if before_file.exists() else {}
    rows = []
    for prediction in evaluation.predictions:
        prediction.before = before.get(prediction.image_id)
        row = dataclasses.asdict(prediction)
        row = {k: v for k, v in row.items() if v is not None}
        rows.append(json.dumps(row, ensure_ascii=False))
    write_atomically(folder / "predictions.jsonl", "\n".join(rows) + "\n")
    write_atomically(folder / "metrics.json", json.dumps(evaluation.metrics, indent=2) + "\n")


def write_skipped(folder: Path, evaluation: Evaluation) -> None:
    """Write skipped.jsonl, a row for each image that could not be read; none: no file."""
    rows = [
        json.dumps({"image_id": image_id, "reason": reason}, ensure_ascii=False)
        for image_id, reason in evaluation.skipped
    ]
    if rows:
        write_atomically(folder / "skipped.jsonl", "\n".join(rows) + "\n")
    else:
        (folder / "skipped.jsonl").unlink(missing_ok=True)  # of an earlier evaluation


def read_predictions(folder: Path) -> list[Prediction]:
    """The predictions that a run kept. Raises DataError where they are damaged."""
    file = folder / "predictions.jsonl"
    try:
        # split at line feeds only: captions may hold other separators
        rows = [json.loads(line) for line in file.read_bytes().split(b"\n") if line]
        return [Prediction(**{**row, "references": tuple(row["references"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{file} is damaged ({error!r:.200}). Evaluate the model again.") from None
