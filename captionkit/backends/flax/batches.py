"""From captions and images to updates: decoded by threads ahead of the model, padded, masked."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.backends.flax.loss import IGNORED
from captionkit.data.captions import decoder_pairs
from captionkit.data.order import visits
from captionkit.errors import ImageError

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.data.preprocess import Preprocessor
    from captionkit.recipe import Recipe

_SHORTEST = 16  # tokens; each length that occurs is compiled once
_AHEAD = 2  # updates that are ready before they are asked for


@dataclass(frozen=True)
class Update:
    """What one optimizer update sees.

    arrays: `pixels`, `input_ids`, `targets` and `mask`, each `(devices, passes, rows, ...)`, or
        `(passes, rows, ...)` for one device. images: rows that are not padding. skipped:
        (image_id, reason) of the images that could not be read.
    """

    arrays: dict[str, Any]
    images: int
    skipped: list[tuple[str, str]]


class TrainingBatches:
    """The updates of a run, from any position on; the same for a seed on every machine.

    token_ids: by image, by caption, as `encode_captions` gives them.
    start_id, pad_id: what the decoder starts from, and what fills its inputs.
    devices, rows: how many devices, and how many images each takes in a pass.
    place: called with the arrays, ahead of time, to bring them to the devices.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        token_ids: Sequence[Sequence[Sequence[int]]],
        preprocess: Preprocessor,
        recipe: Recipe,
        start_id: int,
        pad_id: int,
        devices: int = 1,
        threads: int | None = None,
        place: Callable[[dict[str, Any]], dict[str, Any]] = lambda arrays: arrays,
    ):
        self.dataset = dataset
        self.pairs = [[decoder_pairs(ids, start_id) for ids in texts] for texts in token_ids]
        self.preprocess = preprocess
        self.recipe = recipe
        self.pad_id = pad_id
        self.passes = recipe.training.accumulation_steps
        self.devices = devices
        self.rows = recipe.training.batch_size // (devices * self.passes)
        self.threads = threads or min(16, os.cpu_count() or 1)
        self.place = place
        self.longest = max(len(inputs) for texts in self.pairs for inputs, _ in texts)
        every_caption = recipe.data.captions == "all"
        self.visits = int(dataset.caption_counts().sum()) if every_caption else len(dataset)
        self.steps_per_epoch = math.ceil(self.visits / recipe.training.batch_size)

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        training = self.recipe.training
        return training.max_steps or math.ceil(training.epochs * self.steps_per_epoch)

    def epoch_at(self, step: int) -> float:
        """Epochs done after so many updates, in shares of an epoch's passes."""
        epochs, done = divmod(step, self.steps_per_epoch)
        passes = math.ceil(self.visits / (self.rows * self.devices))
        return epochs + min(done * self.passes, passes) / passes

    def updates(self, first: int = 0) -> Generator[Update, None, None]:
        """The updates from number `first` on, made ahead by a thread."""
        return ahead(self._updates(first), _AHEAD)

    def _updates(self, first: int) -> Iterator[Update]:
        size = self.recipe.training.batch_size
        epoch = -1
        with ThreadPoolExecutor(self.threads) as pool:
            for number in range(first, self.total_steps):
                if number // self.steps_per_epoch != epoch:
                    epoch = number // self.steps_per_epoch
                    order = visits(
                        self.dataset, self.recipe.data.captions, self.recipe.training.seed, epoch
                    )
                start = number % self.steps_per_epoch * size
                yield self._update(order[start : start + size].tolist(), pool)

    def _update(self, chosen: list[tuple[int, int]], pool: ThreadPoolExecutor) -> Update:
        """One update of these visits; rows that they do not fill are masked."""
        shape = (self.devices, self.passes, self.rows)
        texts = [self.pairs[image][caption] for image, caption in chosen]
        length = self._length(max(len(inputs) for inputs, _ in texts))
        pixels = np.zeros((*shape, self.preprocess.height, self.preprocess.width, 3), np.uint8)
        input_ids = np.full((*shape, length), self.pad_id, np.int32)
        targets = np.full((*shape, length), IGNORED, np.int32)
        mask = np.zeros((*shape, length), bool)
        mask[..., 0] = True  # no row without a position to attend to

        def fill(row: int) -> tuple[str, str] | None:
            # passes follow one another, and each is shared out over the devices
            pass_, rest = divmod(row, self.devices * self.rows)
            place = (rest // self.rows, pass_, rest % self.rows)
            example = self.dataset[chosen[row][0]]
            try:
                pixels[place] = self.preprocess(example.image)
            except ImageError as error:
                return example.image_id, str(error)  # what follows from it is the trainer's affair
            inputs, wanted = texts[row]
            input_ids[place][: len(inputs)] = inputs
            targets[place][: len(wanted)] = wanted
            mask[place][: len(inputs)] = True
            return None

        skipped = [reason for reason in pool.map(fill, range(len(chosen))) if reason]
        arrays: dict[str, np.ndarray] = {
            "pixels": pixels,
            "input_ids": input_ids,
            "targets": targets,
            "mask": mask,
        }
        if self.devices == 1:
            arrays = {name: array[0] for name, array in arrays.items()}
        return Update(self.place(arrays), len(chosen) - len(skipped), skipped)

    def _length(self, needed: int) -> int:
        length = _SHORTEST
        while length < needed:
            length *= 2
        return min(length, self.longest)


def ahead(items: Iterator[Any], count: int) -> Generator[Any, None, None]:
    """The same items, `count` of them made by a thread before they are asked for.

    An error of the thread is raised where its item would have come. Closing the iterator ends it.
    """
    done = object()
    ready: queue.Queue[Any] = queue.Queue(count)
    closed = threading.Event()

    def put(item: Any) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((done, None))
        except BaseException as error:
            put((done, error))

    thread = threading.Thread(target=produce, name="captionkit-batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is done:
                return
            yield item
    finally:
        closed.set()
        thread.join()
