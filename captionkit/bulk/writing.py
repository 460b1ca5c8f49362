"""Captioning what is to do, and writing each batch while the next one is captioned."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from captionkit.bulk.config import BulkConfig
from captionkit.bulk.item import Item, displayed
from captionkit.bulk.journal import Journal
from captionkit.bulk.pipeline import Outcome, caption_items
from captionkit.bulk.place import Place
from captionkit.bulk.progress import BulkProgress
from captionkit.bulk.rows import Row, failure_row
from captionkit.bulk.survey import Looked
from captionkit.bulk.table_file import TableFile
from captionkit.bulk.text_files import TextFiles
from captionkit.errors import ImageError, OutputError


@dataclass
class Written:
    """Numbers of images: captioned, failed, and kept as they got a caption meanwhile."""

    captioned: int = 0
    failed: int = 0
    kept: int = 0
    failures: list[Row] = field(default_factory=list)

    @property
    def images(self) -> int:
        """All of them."""
        return self.captioned + self.failed + self.kept

    def add(self, batch: Written) -> None:
        """Count a batch in; its failures are not kept, since there may be any number."""
        self.captioned += batch.captioned
        self.failed += batch.failed
        self.kept += batch.kept


def caption_and_write(
    captioner: Any,
    looked: Iterator[Looked],
    decoding: Mapping[str, Any],
    journal: Journal,
    target: TextFiles | TableFile,
    config: BulkConfig,
    place: Place,
    bar: BulkProgress,
    should_stop: Callable[[], bool],
) -> Generator[Written, None, None]:
    """Caption the images that are to do, in batches; yields what became of each batch.

    It ends early when it is asked to stop. Raises `OutputError` where nothing can be written.
    """
    keys: list[str] = []  # of the images on their way, in order
    batches = caption_items(
        captioner, _to_do(looked, keys), config.batch_size, decoding, config.seed, config.workers
    )

    def write(batch: Sequence[tuple[str, Item, Outcome]]) -> Written:
        with disk_errors(place):
            return _write(batch, journal, target)

    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer, contextlib.closing(batches):
        writing: Future[Written] | None = None
        for batch in batches:
            if writing is not None:
                yield writing.result()
            named = [(key, *one) for key, one in zip(keys, batch)]  # noqa: B905 (keys run ahead)
            del keys[: len(batch)]
            writing = writer.submit(write, named)
            bar.advance(len(batch))
            if should_stop():
                break
        if writing is not None:
            yield writing.result()


@contextlib.contextmanager
def disk_errors(place: Place) -> Iterator[None]:
    """What the system says of the disk, as an error of ours that says how to go on."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Cannot write to {displayed(str(place.output or place.home))}: {error.strerror}. What "
            f"was captioned so far is kept in {displayed(str(place.state))}; when that is mended, "
            "the same command goes on."
        ) from None


def _to_do(looked: Iterator[Looked], keys: list[str]) -> Iterator[Item]:
    for one in looked:
        if one.state in ("todo", "bad"):
            keys.append(one.key)
            yield dataclasses.replace(one.item, problem=one.reason)


def _write(
    batch: Sequence[tuple[str, Item, Outcome]], journal: Journal, target: TextFiles | TableFile
) -> Written:
    """Into the journal first: what is in it is done, whatever happens next."""
    rows = []
    for key, item, outcome in batch:
        if isinstance(outcome, ImageError):
            rows.append(failure_row(key, str(outcome)))
        elif (row := target.row(item, key, outcome)) is not None:
            rows.append(row)
    journal.add(rows)
    late = target.apply(rows)
    if late:
        journal.add(late)
    if isinstance(target, TextFiles):
        journal.applied()
    failures = [row for row in rows if "failed" in row] + late
    return Written(len(rows) - len(failures), len(failures), len(batch) - len(rows), failures)
