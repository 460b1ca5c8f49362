"""Which rows a run over a stream sees; what `loader` does for datasets that are all there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from captionkit.data.loader import Row, read_row
from captionkit.types import Example

if TYPE_CHECKING:
    from captionkit.data.streaming import StreamedDataset
    from captionkit.recipe import Recipe
    from captionkit.types import ImageSource

StreamVisit = tuple[Example, list[int]]  # an image, and the token ids of one of its captions


class StreamOrder:
    """The visits of a run over a stream in batches of `size`, of which this process has its share.

    A stream has no length, so the whole run, max_steps updates, counts as one epoch. Captions are
    tokenized as they come. encode: captions and their images' ids -> token ids.
    """

    def __init__(
        self,
        dataset: StreamedDataset,
        recipe: Recipe,
        encode: Callable[[list[str], list[str]], list[list[int]]],
        size: int,
        process: int = 0,
        processes: int = 1,
    ):
        assert recipe.training.max_steps is not None  # `finetune` has seen to it
        self.dataset = dataset
        self.captions = recipe.data.captions
        self.seed = recipe.training.seed
        self.encode = encode
        self.size = size
        self.process = process
        self.processes = processes
        self.visits = recipe.training.max_steps * recipe.training.batch_size
        self.batches_per_epoch = math.ceil(self.visits / (size * processes))

    def batches(self, first: int, last: int) -> Iterator[list[StreamVisit]]:
        """Numbers `first` to `last` - 1; those before `first` are read, but not decoded."""
        visits = self.dataset.endless_visits(
            self.captions, self.seed, first * self.size * self.processes,
            self.process, self.processes,
        )  # fmt: skip
        for _ in range(first, last):
            batch = list(itertools.islice(visits, self.size))
            texts = [example.captions[chosen] for example, chosen in batch]
            ids = self.encode(texts, [example.image_id for example, _ in batch])
            yield [(example, own) for (example, _), own in zip(batch, ids, strict=True)]


class StreamReader:
    """Reads the image of a visit. read_image: see `image_reader`; longest: tokens of a caption."""

    def __init__(self, read_image: Callable[[ImageSource], np.ndarray], longest: int):
        self.read_image = read_image
        self.longest: Sequence[int] = range(longest)

    def __call__(self, visit: StreamVisit) -> Row:
        """Called by several threads at once."""
        return read_row(self.read_image, *visit)

    def ids(self, visit: StreamVisit) -> Sequence[int]:
        """The token ids of the visit's caption."""
        return visit[1]
