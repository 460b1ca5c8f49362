"""Images that come one after the other and are never all there: sets larger than the disk.

An epoch goes through the shards in an order drawn from (seed, epoch), and then through a shuffle
buffer: each image that comes in takes the place of a drawn one, which goes out. All draws are pure
functions of the seed, so a stream has the same visits on every backend, in every process, and again
after a resume.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from captionkit.data import arrow, columns
from captionkit.data.dataset import CaptionDataset
from captionkit.data.fetch import is_url
from captionkit.data.filters import passing
from captionkit.data.image_column import as_source
from captionkit.data.order import buffer_slots, caption_index, permutation
from captionkit.data.paths import below, outside, spellings
from captionkit.errors import CaptionkitError, ConfigError, DataError, first_line
from captionkit.types import Example

if TYPE_CHECKING:
    import datasets

    from captionkit.recipe import DataConfig

Visit = tuple[Example, int]  # an image, and which of its captions is shown
_DRAWN_AT_ONCE = 1024


class StreamedDataset:
    """Images with captions in shards that are read from the start; without a length.

    shards: each a function that gives the examples of one shard, always the same ones in the same
    order. config: whose filters and `shuffle_buffer` are used.
    """

    def __init__(
        self,
        shards: Sequence[Callable[[], Iterator[Example]]],
        name: str,
        config: DataConfig,
        most: int | None = None,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self.shards, self.name, self.config = list(shards), name, config
        self.most = most  # images of the stream that are used; None: all
        self.without = without  # image_ids that are left out

    @classmethod
    def from_hf(
        cls, rows: datasets.IterableDataset, name: str, config: DataConfig, folder: Path | None
    ) -> StreamedDataset:
        """From a `datasets.IterableDataset`. Rows with the same `image_id` are one image if they
        follow one another; without that column an id is the number of the shard and of the row.

        folder: where paths of images have to lie; None: images that are paths are refused.
        """
        count = rows.num_shards
        rows = rows.decode(False)
        shards = [
            functools.partial(_examples, rows.shard(count, i), f"{i:05d}", name, config, folder)
            for i in range(count)
        ]
        return cls(shards, name, config)

    def __repr__(self) -> str:
        return f"StreamedDataset({self.name!r}, {len(self.shards):,} shards)"

    def first(self, count: int) -> StreamedDataset:
        """The first `count` images of the stream alone; the shards then keep their order."""
        return StreamedDataset(self.shards, self.name, self.config, count, self.without)

    def held_out(self, count: int) -> tuple[StreamedDataset, CaptionDataset]:
        """(the rest, the first `count` images, which are kept in memory, encoded)."""
        held_out = self.taken(count)
        ids = self.without | frozenset(held_out.image_ids)
        return StreamedDataset(self.shards, self.name, self.config, self.most, ids), held_out

    def taken(self, count: int) -> CaptionDataset:
        """The first `count` images, or all where there are fewer, in memory, encoded."""
        rows = (
            {"image": _encoded(e), "captions": e.captions, "image_id": e.image_id}
            for e in itertools.islice(self.examples(), count)
        )
        return CaptionDataset.from_rows(rows, self.name, allow_urls=self.config.allow_urls)

    def all_captions(self) -> list[str]:
        """Refused: what is made of all captions cannot be made of a stream."""
        raise ConfigError(
            "A stream's captions are not at hand, so no tokenizer can be made of them. Start from "
            "a checkpoint or a folder that has a tokenizer."
        )

    # ---- reading -------------------------------------------------------------------------------

    def examples(self, order: Iterable[int] | None = None) -> Iterator[Example]:
        """All examples, shard by shard, in the order of the shards that is given or theirs.

        What the filters leave out is warned of at the end. Raises DataError, also for whatever
        goes wrong in reading, and where there is nothing.
        """
        seen = used = 0
        try:
            for number in range(len(self.shards)) if order is None else order:
                for example in self.shards[number]():
                    _check(example, self.name)
                    seen += 1
                    kept = (
                        None if example.image_id in self.without else passing(example, self.config)
                    )
                    if kept is not None:
                        used += 1
                        yield kept
                    if self.most is not None and used >= self.most:
                        return
        except CaptionkitError:
            raise
        except Exception as error:  # of datasets, pyarrow, the network
            raise DataError(
                f"{self.name}: after {seen:,} images of an epoch the stream broke off: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from None
        if not seen:
            raise DataError(f"{self.name} is empty: there is no image with captions in it.")
        left_out, held_out = seen - used - len(self.without), len(self.without)
        message = f"{self.name}: the filters leave out {left_out:,} of {seen:,} images."
        if not used:
            more = f" {held_out:,} are held out (max_eval_samples)." if held_out else ""
            raise DataError(f"{message}{more} Nothing is left.")
        if left_out:
            warnings.warn(message, stacklevel=2)

    def visits(
        self,
        captions: Literal["random", "first", "all"],
        seed: int,
        epoch: int = 0,
        start: int = 0,
        rank: int = 0,
        count: int = 1,
    ) -> Iterator[Visit]:
        """The visits of one epoch from number `start` on, of which this process has every
        `count`-th, beginning with its `rank`-th.

        Captions are drawn as for every dataset: "random" by (seed, epoch, image_id), "first", or
        "all", each of them a visit of its own. Whatever is skipped is read, but not decoded: going
        on at a late visit costs the reading of all before it.
        """
        buffered = self._shuffled(captions, seed, epoch)
        return itertools.islice(buffered, start + rank, None, count)

    def endless_visits(
        self,
        captions: Literal["random", "first", "all"],
        seed: int,
        start: int = 0,
        rank: int = 0,
        count: int = 1,
    ) -> Iterator[Visit]:
        """The same, epoch after epoch; `start` counts over all epochs.

        An epoch follows the other without a gap: a batch may hold the end of one and the beginning
        of the next.
        """
        epochs = (self._shuffled(captions, seed, epoch) for epoch in itertools.count())
        return itertools.islice(itertools.chain.from_iterable(epochs), start + rank, None, count)

    def _shuffled(
        self, captions: Literal["random", "first", "all"], seed: int, epoch: int
    ) -> Iterator[Visit]:
        shards = None
        if self.most is None:  # the first images are the first in the order of the shards
            shards = permutation(len(self.shards), seed, epoch).tolist()
        visits = (
            (example, chosen)
            for example in self.examples(shards)
            for chosen in _chosen(example, captions, seed, epoch)
        )
        return shuffled(visits, self.config.shuffle_buffer, seed, epoch)


def shuffled(items: Iterable[Any], size: int, seed: int, epoch: int) -> Iterator[Any]:
    """Through a buffer of so many items: each that comes in takes a drawn one's place.

    What is left at the end comes in an order of its own.
    """
    items = iter(items)
    buffer = list(itertools.islice(items, size))
    for first in itertools.count(0, _DRAWN_AT_ONCE):
        chunk = list(itertools.islice(items, _DRAWN_AT_ONCE))
        slots = buffer_slots(size, first, len(chunk), seed, epoch).tolist()
        for slot, item in zip(slots, chunk, strict=True):
            yield buffer[slot]
            buffer[slot] = item
        if not chunk:
            break
    for i in permutation(len(buffer), seed, epoch).tolist():
        yield buffer[i]


def _chosen(
    example: Example, captions: Literal["random", "first", "all"], seed: int, epoch: int
) -> Iterable[int]:
    count = len(example.captions)
    if captions == "all":
        return range(count)
    return [caption_index(seed, epoch, example.image_id, count) if captions == "random" else 0]


# ---- validation --------------------------------------------------------------------------------


def with_validation(
    config: DataConfig, train: StreamedDataset, read: Callable[[DataConfig, str], Any]
) -> tuple[StreamedDataset, CaptionDataset | None]:
    """A stream with its validation images: of given files, or the first few of a stream.

    read: gives a split of the source. Raises ConfigError where nothing says which images.
    """
    if config.group_by_content:
        raise ConfigError("group_by_content reads every image first, and streaming does not.")
    if config.validation_file is not None:
        return train, read(dataclasses.replace(config, streaming=False), "validation")
    stream = read(config, "validation")
    if config.max_eval_samples is not None:
        if stream is None:
            return train.held_out(config.max_eval_samples)
        return train, stream.taken(config.max_eval_samples)
    if stream is None and not config.test_size:
        return train, None
    raise ConfigError(
        "A stream has no length, so no share of it can be held out. Choose: max_eval_samples=N (the"
        " first N images, of the validation split if there is one, are kept in memory), "
        "validation_file, or test_size=0 (no validation, where the set has no split for it)."
    )


# ---- rows of datasets --------------------------------------------------------------------------


def _examples(
    rows: datasets.IterableDataset,
    shard: str,
    name: str,
    config: DataConfig,
    folder: Path | None,
) -> Iterator[Example]:
    def image_id(numbered: tuple[int, Mapping[str, Any]]) -> str:
        number, row = numbered
        given = row.get("image_id")
        return f"{shard}/{number}" if given is None else str(given)

    for name_of, group in itertools.groupby(enumerate(rows), key=image_id):
        source, captions = None, []
        for _, row in group:
            image_column = columns.image_column(list(row), config.image_column, name)
            caption_column = columns.caption_column(list(row), config.caption_column, name)
            if source is None:
                source = _source(row[image_column], f"{name}, image {name_of}", config, folder)
            captions += arrow.caption_list(row[caption_column], name_of, name)
        yield Example(source, tuple(captions), name_of)  # type: ignore[arg-type]  # a group has a row


def _source(value: Any, where: str, config: DataConfig, folder: Path | None) -> Any:
    if isinstance(value, dict) and "bytes" not in value:
        raise DataError(f"{where}: expected an image, found {value!r:.80}.")
    content = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) and content is None else content
    if not isinstance(path, str):
        return as_source(content)
    if is_url(path):
        if not config.allow_urls:
            raise DataError(f"{where}: {path} is a URL; {arrow.NO_URLS}")
        return as_source(path)
    if folder is None:
        raise DataError(
            f"{where} is the path {path!r}: a stream from elsewhere cannot have images here."
        )
    if below(path, spellings(folder)) is None and not config.allow_outside_paths:
        raise outside(path, str(folder), where)
    return os.path.join(folder, path)


def _check(example: Example, name: str) -> None:
    if not example.captions:
        raise DataError(f"{name}: the image {example.image_id} has no caption.")
    if not all(caption.strip() for caption in example.captions):
        raise DataError(f"{name}: the image {example.image_id} has an empty caption.")


def _encoded(example: Example) -> Any:
    source: Any = example.source
    return source.read_bytes() if hasattr(source, "read_bytes") else source
