"""Which rows a run sees, and reading them by threads ahead of the model; for every backend.

Threads rather than processes: decoding and resizing release Python's lock, and nothing has to be
pickled, forked or copied. What is read depends on the seed alone, not on how many read it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from captionkit.data.captions import encode_captions
from captionkit.data.order import visit_count, visits
from captionkit.errors import ImageError

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.data.preprocess import Preprocessor
    from captionkit.data.streaming import StreamedDataset
    from captionkit.recipe import DataConfig, Recipe
    from captionkit.types import Example, ImageSource

Item = TypeVar("Item")
Result = TypeVar("Result")
Visit = tuple[int, int]  # (image index, caption index)

MOST_WORKERS = 16
_MOST_TOKENS = 2**16  # of a caption, where neither model nor settings say


class Row(NamedTuple):
    """An image of a batch and one of its captions.

    pixels: uint8 `(height, width, 3)`; None where the image could not be read, and then `skipped`
    is (image_id, reason). ids: the token ids of the caption. image_id: as the dataset names it.
    """

    pixels: np.ndarray | None
    ids: Sequence[int]
    skipped: tuple[str, str] | None = None
    image_id: str = ""


def training_rows(
    dataset: CaptionDataset | StreamedDataset,
    recipe: Recipe,
    tokenizer: Any,
    limit: int | None,
    preprocess: Preprocessor,
    size: int,
    process: int = 0,
    processes: int = 1,
    own_start: bool = True,
) -> tuple[Any, Any]:
    """(order, reader): which rows a run sees in batches of `size`, and what reads one of them.

    A `RunOrder` and a `RowReader`, or of a stream a `StreamOrder` and a `StreamReader`. limit: the
    tokens that the model allows; a caption that is longer is a DataError. own_start: see
    `encode_captions`.
    """
    from captionkit.data.streaming import StreamedDataset

    longest = recipe.training.max_caption_tokens

    def encode(captions: list[str], names: list[str]) -> list[list[int]]:
        return encode_captions(tokenizer, captions, longest, limit, names, own_start)

    if isinstance(dataset, StreamedDataset):
        from captionkit.data.stream_rows import StreamOrder, StreamReader

        order = StreamOrder(dataset, recipe, encode, size, process, processes)
        most = min((n for n in (longest, limit) if n is not None), default=_MOST_TOKENS)
        return order, StreamReader(image_reader(preprocess, recipe.data, order.visits), most)
    names = np.repeat(np.array(dataset.image_ids, dtype=object), dataset.caption_counts())
    ids = iter(encode(dataset.all_captions(), names.tolist()))
    token_ids = [[next(ids) for _ in range(count)] for count in dataset.caption_counts().tolist()]
    read_image = image_reader(preprocess, recipe.data, len(dataset))
    return (
        RunOrder(dataset, recipe, size, process, processes),
        RowReader(dataset, token_ids, read_image),
    )


class RowReader:
    """Reads the image of a visit, and looks up its caption's token ids.

    token_ids: by image, by caption. read_image: source -> uint8 pixels, see `image_reader`.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        token_ids: Sequence[Sequence[Sequence[int]]],
        read_image: Callable[[ImageSource], np.ndarray],
    ):
        self.dataset = dataset
        self.token_ids = token_ids
        self.read_image = read_image

    def __call__(self, visit: Visit) -> Row:
        """Called by several threads at once."""
        return read_row(self.read_image, self.dataset[visit[0]], self.ids(visit))

    def ids(self, visit: Visit) -> Sequence[int]:
        """The token ids of the visit's caption."""
        image, caption = visit
        return self.token_ids[image][caption]

    @property
    def longest(self) -> Sequence[int]:
        """The longest caption, as token ids."""
        return max((ids for captions in self.token_ids for ids in captions), key=len)


def read_row(
    read_image: Callable[[ImageSource], np.ndarray], example: Example, ids: Sequence[int]
) -> Row:
    """One row; what follows from an image that cannot be read is not decided here."""
    try:
        return Row(read_image(example.source), ids, image_id=example.image_id)
    except ImageError as error:
        reason = f"Image {example.image_id!r}: {error}"
        return Row(None, ids, (example.image_id, reason), example.image_id)


# ---- which rows ----------------------------------------------------------------------------------


class RunOrder:
    """The visits of a run in batches of `size`, of which this process takes every n-th.

    All processes have as many batches; the last ones of an epoch may be short or empty.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        recipe: Recipe,
        size: int,
        process: int = 0,
        processes: int = 1,
    ):
        self.dataset = dataset
        self.captions = recipe.data.captions
        self.seed = recipe.training.seed
        self.size = size
        self.process = process
        self.processes = processes
        self.visits = visit_count(dataset, self.captions)
        self.batches_per_epoch = math.ceil(self.visits / (size * processes))

    def batches(self, first: int, last: int) -> Iterator[list[Visit]]:
        """Numbers `first` to `last` - 1, counted over all epochs."""
        drawn = -1
        for number in range(first, last):
            epoch, within = divmod(number, self.batches_per_epoch)
            if epoch != drawn:
                order, drawn = visits(self.dataset, self.captions, self.seed, epoch), epoch
            start = (within * self.processes + self.process) * self.size
            yield [(image, caption) for image, caption in order[start : start + self.size].tolist()]


# ---- reading them --------------------------------------------------------------------------------


def image_reader(
    preprocess: Preprocessor, config: DataConfig, images: int
) -> Callable[[ImageSource], np.ndarray]:
    """How the training images are read: source -> uint8 pixels, from the cache if there is one.

    images: how many there are, which bounds the cache too.
    """
    read = functools.partial(preprocess.read, fast_jpeg=config.fast_jpeg)
    if not config.image_cache_gb:
        return read
    from captionkit.data.decoded_cache import DecodedCache

    cache = DecodedCache.open(preprocess, config.fast_jpeg, config.image_cache_gb, images)
    return functools.partial(cache.read, read)


def read_batches(
    read: Callable[[Item], Result], batches: Iterable[Sequence[Item]], workers: int | None = None
) -> Generator[list[Result], None, None]:
    """`read` of every item, batch by batch and in order, by so many threads.

    The next batch is begun before the last is done. Closing it waits for the items being read.
    """
    pending: deque[list[Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers or default_workers(), "captionkit-images")
    try:
        for batch in batches:
            pending.append([pool.submit(read, item) for item in batch])
            if len(pending) > 1:
                yield [row.result() for row in pending.popleft()]
        while pending:
            yield [row.result() for row in pending.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(items: Generator[Item, None, None], count: int = 2) -> Generator[Item, None, None]:
    """The same items, `count` of them made by a thread before they are asked for.

    An error of the thread is raised where its item would have come. Closing it ends the thread
    and closes `items`.
    """
    done: Any = object()
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(count)
    closed = threading.Event()

    def put(item: Any, error: BaseException | None = None) -> bool:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, error), timeout=0.1)
                return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(done)
        except BaseException as error:
            put(done, error)

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
        items.close()


def default_workers() -> int:
    """The cores that this process may use, shared with those that torchrun started beside it."""
    beside = os.environ.get("LOCAL_WORLD_SIZE", "")
    processes = int(beside) if beside.isdecimal() else 1
    return max(1, min(MOST_WORKERS, usable_cores() // max(1, processes)))


def usable_cores() -> int:
    """The cores that this process may use, which need not be all of the machine's."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
