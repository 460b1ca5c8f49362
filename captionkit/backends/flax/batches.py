"""From captions and images to updates: read by threads ahead of the model, padded, masked."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.backends.flax.loss import IGNORED
from captionkit.data.captions import decoder_pairs
from captionkit.data.loader import Row, ahead, read_batches

if TYPE_CHECKING:
    from captionkit.recipe import Recipe

_SHORTEST = 16  # tokens; each length that occurs is compiled once


@dataclass(frozen=True)
class Update:
    """What one optimizer update sees.

    arrays: `pixels`, `input_ids`, `targets` and `mask`, each `(devices, passes, rows, ...)`, or
        `(passes, rows, ...)` for one device. images: rows that are not padding. skipped:
        (image_id, reason) of the images that could not be read. image_ids: of the others. Each of
        several processes has the arrays of its own devices, and skipped and image_ids of these
        alone; images counts the rows of all, less its own skipped ones.
    """

    arrays: dict[str, Any]
    images: int
    skipped: list[tuple[str, str]]
    image_ids: list[str]


class TrainingBatches:
    """The updates of a run, from any position on; the same for a seed on every machine.

    order: which rows; read: reads one, see `training_rows`. size: (height, width) of the images.
    start_id, pad_id: what the decoder starts from, and what fills its inputs.
    devices: how many; each takes an equal part of a pass. local: the numbers of those that this
        process brings the images of; None: all.
    place: called with the arrays, ahead of time, to bring them to the devices.
    """

    def __init__(
        self,
        order: Any,
        read: Any,
        recipe: Recipe,
        size: tuple[int, int],
        start_id: int,
        pad_id: int,
        devices: int = 1,
        place: Callable[[dict[str, Any]], dict[str, Any]] = lambda arrays: arrays,
        local: range | None = None,
    ):
        self.order = order
        self.read = read
        self.size = size
        self.recipe = recipe
        self.start_id = start_id
        self.pad_id = pad_id
        self.passes = recipe.training.accumulation_steps
        self.devices = devices
        self.local = range(devices) if local is None else local
        self.rows = recipe.training.batch_size // (devices * self.passes)
        self.place = place
        self.longest = len(decoder_pairs(read.longest, start_id)[0])
        self.steps_per_epoch = self.order.batches_per_epoch

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        training = self.recipe.training
        return training.max_steps or math.ceil(training.epochs * self.steps_per_epoch)

    def epoch_at(self, step: int) -> float:
        """Epochs done after so many updates, in shares of an epoch's passes."""
        epochs, done = divmod(step, self.steps_per_epoch)
        passes = math.ceil(self.order.visits / (self.rows * self.devices))
        return epochs + min(done * self.passes, passes) / passes

    def updates(self, first: int = 0) -> Generator[Update, None, None]:
        """The updates from number `first` on, made ahead by threads. Closing it ends them."""
        return ahead(self._updates(first))

    def _updates(self, first: int) -> Generator[Update, None, None]:
        visits = self.order.batches(first, self.total_steps)
        numbered = (list(enumerate(update)) for update in visits)
        for rows in read_batches(self._read, numbered, self.recipe.data.workers):
            yield self._update(rows)

    def _read(self, numbered: tuple[int, Any]) -> Row:
        """Of other processes' images the captions alone: all must know the longest."""
        number, visit = numbered
        device = number % (self.devices * self.rows) // self.rows
        return self.read(visit) if device in self.local else Row(None, self.read.ids(visit))

    def _update(self, rows: list[Row]) -> Update:
        """One update of these rows; those that they do not fill are masked."""
        shape = (len(self.local), self.passes, self.rows)
        pairs = [decoder_pairs(row.ids, self.start_id) for row in rows]
        length = self._length(max(len(inputs) for inputs, _ in pairs))
        pixels = np.zeros((*shape, *self.size, 3), np.uint8)
        input_ids = np.full((*shape, length), self.pad_id, np.int32)
        targets = np.full((*shape, length), IGNORED, np.int32)
        mask = np.zeros((*shape, length), bool)
        mask[..., 0] = True  # no row without a position to attend to
        for number, (row, (inputs, wanted)) in enumerate(zip(rows, pairs, strict=True)):
            if row.pixels is None:
                continue  # another process's, or what follows from it is the trainer's affair
            # passes follow one another, and each is shared out over the devices
            pass_, rest = divmod(number, self.devices * self.rows)
            place = (rest // self.rows - self.local.start, pass_, rest % self.rows)
            pixels[place] = row.pixels
            input_ids[place][: len(inputs)] = inputs
            targets[place][: len(wanted)] = wanted
            mask[place][: len(inputs)] = True
        arrays: dict[str, np.ndarray] = {
            "pixels": pixels,
            "input_ids": input_ids,
            "targets": targets,
            "mask": mask,
        }
        if self.devices == 1:
            arrays = {name: array[0] for name, array in arrays.items()}
        skipped = [row.skipped for row in rows if row.skipped]
        image_ids = [row.image_id for row in rows if row.pixels is not None]
        return Update(self.place(arrays), len(rows) - len(skipped), skipped, image_ids)

    def _length(self, needed: int) -> int:
        length = _SHORTEST
        while length < needed:
            length *= 2
        return min(length, self.longest)
