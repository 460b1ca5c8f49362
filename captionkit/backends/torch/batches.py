"""From captions and images to the padded batches of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset

from captionkit.backends.torch.loss import IGNORED
from captionkit.data.captions import decoder_pairs
from captionkit.data.loader import Row, RunOrder, Visit, ahead, read_batches
from captionkit.recipe import Recipe


class TrainingBatches(Dataset):
    """The batches of a process by their number in the epoch, which `epoch` says.

    Taken in order, as the Trainer does, they are made by threads ahead of time; any other number
    begins anew there.

    Each is `pixel_values` uint8 `(batch, 3, height, width)`, `input_ids` and `attention_mask`
    `(batch, length)`, `labels` `(batch, length)` (the token that follows each input; IGNORED at
    padding), `image_ids`, and `skipped`, a list of (image_id, reason). Scaling to float happens on
    the device, which moves a quarter of the bytes.

    order: which images; read: reads one. pad_token_id: for inputs; start_id: see `decoder_pairs`;
    size: (height, width) of the images.
    """

    def __init__(
        self,
        order: RunOrder,
        read: Callable[[Visit], Row],
        recipe: Recipe,
        pad_token_id: int,
        size: tuple[int, int],
        start_id: int | None = None,
    ):
        self.order = order
        self.read = read
        self.workers = recipe.data.workers
        self.pad_token_id = pad_token_id
        self.size = size
        self.start_id = start_id
        self.epoch = 0
        self.last = _batches_of_run(recipe, len(self))
        self._next = -1  # the batch that `_running` comes to, counted over all epochs
        self._running: Generator[dict[str, Any], None, None] | None = None

    def __len__(self) -> int:
        return self.order.batches_per_epoch

    def __getitem__(self, number: int) -> dict[str, Any]:
        number += self.epoch * len(self)
        if self._running is None or number != self._next or number >= self.last:
            self.close()
            self._running = ahead(self._from(number))
        self._next = number + 1
        return next(self._running)

    def close(self) -> None:
        """End the threads."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _from(self, first: int) -> Generator[dict[str, Any], None, None]:
        visits = self.order.batches(first, max(self.last, first + 1))
        for rows in read_batches(self.read, visits, self.workers):
            yield self._batch(rows)

    def _batch(self, rows: list[Row]) -> dict[str, Any]:
        skipped = [row.skipped for row in rows if row.skipped]
        kept = [(row.pixels, row.ids) for row in rows if row.pixels is not None]
        if not kept:
            # a batch needs a row: one black image from which nothing is learned
            kept = [(numpy.zeros((*self.size, 3), numpy.uint8), [])]
        batch = pad_captions([ids for _, ids in kept], self.pad_token_id, self.start_id)
        pixels = numpy.stack([pixels for pixels, _ in kept])
        pixel_values = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        image_ids = [row.image_id for row in rows if row.pixels is not None]
        return {
            **batch, "pixel_values": pixel_values, "image_ids": image_ids, "skipped": skipped,
        }  # fmt: skip


def _batches_of_run(recipe: Recipe, per_epoch: int) -> int:
    """How many batches a process takes over all epochs."""
    passes = recipe.training.accumulation_steps
    updates_per_epoch = math.ceil(per_epoch / passes)
    updates = recipe.training.max_steps or math.ceil(recipe.training.epochs * updates_per_epoch)
    epochs, rest = divmod(updates, updates_per_epoch)
    return epochs * per_epoch + min(rest * passes, per_epoch)


def pad_captions(
    ids: Sequence[Sequence[int]], pad_token_id: int, start_id: int | None = None
) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `labels`, `(batch, longest inputs)`.

    start_id: the token that every caption starts from, where its ids do not begin with it.
    """
    pairs = [decoder_pairs(caption, start_id) for caption in ids]
    length = max(1, max(len(inputs) for inputs, _ in pairs))
    input_ids = torch.full((len(ids), length), pad_token_id)
    labels = torch.full((len(ids), length), IGNORED)
    mask = torch.zeros((len(ids), length), dtype=torch.long)
    for row, (inputs, targets) in enumerate(pairs):
        input_ids[row, : len(inputs)] = torch.as_tensor(inputs)
        labels[row, : len(inputs)] = torch.as_tensor(targets)
        mask[row, : len(inputs)] = 1
    mask[:, 0] = 1  # no row without a position to attend to
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
