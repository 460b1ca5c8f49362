"""Images with their captions: a list that lives in Arrow and decodes nothing until asked."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.data import arrow, columns, order
from captionkit.data.image_column import ImageColumn, ImageParts
from captionkit.errors import DataError, OutputError
from captionkit.types import Example
from captionkit.whole_files import whole_file

if TYPE_CHECKING:
    import datasets

    from captionkit.data.mixing import Mixture
    from captionkit.types import ImageSource

_TEXTS = ["captions", "image_id"]
_ID_TYPES = ("string", "large_string", "int32", "int64", "uint32", "uint64")


class CaptionDataset:
    """A map-style dataset: `len(ds)`, `ds[i] -> Example(source, captions, image_id)`.

    Built by one of the `from_...` constructors. Every image has at least one caption (or, in a test
    split, none has), no caption is empty, and ids are unique; anything else is a DataError when it
    is built. Rows come from a memory-mapped Arrow file where there is one, so a dataset costs
    little to pickle or to fork.
    """

    def __init__(
        self,
        images: ImageColumn | ImageParts,
        texts: datasets.Dataset,
        name: str,
        mixture: Mixture | None = None,
    ) -> None:
        # `texts`: captions (list<string>) and image_id (string), row for row with `images`
        self.images, self._texts, self.name = images, texts, name
        self.mixture = mixture  # where its sources are not shown equally often
        if not len(texts):
            raise DataError(f"{name} is empty: there is no image with captions in it.")

    # ---- constructors --------------------------------------------------------------------------

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        name: str,
        cache_file: str | Path | None = None,
        allow_urls: bool = False,
    ) -> CaptionDataset:
        """From rows of `image`, `captions` and `image_id`.

        Paths and encoded bytes are kept as they are, PIL images and arrays become PNG. With
        `cache_file` the rows are written there (or left unread if it is there already) and then
        memory-mapped. URLs are a DataError unless allowed.
        """
        import datasets
        import pyarrow as pa

        if cache_file is None:
            sink = pa.BufferOutputStream()
            arrow.write_rows(rows, sink, name, allow_urls)
            return cls._checked(datasets.Dataset.from_buffer(sink.getvalue()), name)

        cache_file = Path(cache_file)
        if not cache_file.exists():
            try:
                with whole_file(cache_file) as partial:
                    with pa.OSFile(str(partial), "wb") as sink:
                        arrow.write_rows(rows, sink, name, allow_urls)
                    cls.from_file(partial, name)
            except OSError as error:
                raise OutputError(
                    f"{name}: {cache_file} cannot be written ({error.strerror or error}). Set "
                    "CAPTIONKIT_CACHE to a folder that can."
                ) from None
        return cls.from_file(cache_file, name)

    @classmethod
    def from_file(cls, cache_file: str | Path, name: str) -> CaptionDataset:
        """From the Arrow file that `from_rows` wrote, memory-mapped."""
        import datasets
        import pyarrow as pa

        try:
            data = datasets.Dataset.from_file(str(cache_file))
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"{name}: {cache_file} cannot be read ({error}). Delete it, and it is made anew."
            ) from None
        return cls._checked(data, name)

    @classmethod
    def from_hf(
        cls,
        dataset: datasets.Dataset,
        name: str,
        image_column: str | None = None,
        caption_column: str | None = None,
        folders: Sequence[Path] = (),
        allow_outside_paths: bool = False,
        allow_urls: bool = False,
    ) -> CaptionDataset:
        """Wrap a `datasets.Dataset`; its images stay where they are and are not re-encoded.

        Captions may be text or lists of text. Rows that share a value of a column `image_id` are
        one image with several captions; without that column ids are row numbers. `folders`: where
        the paths of images have to lie, unless outside paths are allowed, and relative ones start
        at the first; none: anywhere.
        """
        import datasets
        import pyarrow as pa

        if not isinstance(dataset, datasets.Dataset):
            splits = f" with one of the splits {list(dataset)}" if isinstance(dataset, dict) else ""
            raise DataError(
                f"{name}: expected a datasets.Dataset{splits}, found {type(dataset).__name__}."
            )
        image_column = columns.image_column(dataset.column_names, image_column, name)
        caption_column = columns.caption_column(dataset.column_names, caption_column, name)
        if not len(dataset):
            raise DataError(f"{name} is empty: there is no image with captions in it.")

        dataset = dataset.with_format(None)
        rows = arrow.undecoded(dataset.select_columns([image_column]), name, allow_urls)
        images = ImageColumn(rows, str(folders[0]) if folders else "")
        if folders and not allow_outside_paths:
            arrow.check_paths(rows, folders, name)
        with_ids = getattr(dataset.features.get("image_id"), "dtype", "") in _ID_TYPES
        texts = dataset.select_columns([caption_column, *(["image_id"] if with_ids else [])])
        table = texts.with_format("arrow")[:]
        captions = arrow.caption_lists(table[caption_column], name)
        if with_ids:
            ids = table["image_id"].cast(pa.string()).combine_chunks()
            if ids.null_count:
                raise DataError(f"{name}: {ids.null_count:,} images have no image_id.")
            first_rows, ids, captions = arrow.group(ids, captions)
            if len(first_rows) < len(images):
                images = images.select(first_rows)
        else:
            ids = pa.array([str(i) for i in range(len(images))])
        table = pa.table({"captions": captions, "image_id": ids})
        texts = datasets.Dataset(datasets.table.InMemoryTable(table))
        return cls._checked(texts, name, images)

    @classmethod
    def from_arrow(cls, rows: datasets.Dataset, name: str) -> CaptionDataset:
        """From columns `image` (see `ImageColumn`), `captions` (list<string>) and `image_id`."""
        return cls._checked(rows, name)

    @classmethod
    def from_pairs(
        cls, pairs: Iterable[Any], name: str, allow_urls: bool = False
    ) -> CaptionDataset:
        """From (image, caption) or (image, captions) pairs in memory.

        Pairs with the same path, or with the same object, are one image. The id is the path, or
        the position in the list.
        """
        rows: dict[Any, dict[str, Any]] = {}
        for i, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise DataError(
                    f"{name}: expected (image, caption) or (image, captions) pairs, but item {i} "
                    f"is {type(pair).__name__!r}."
                )
            image, captions = pair
            is_path = isinstance(image, (str, os.PathLike))
            image_id = os.fspath(image) if is_path else str(i)
            row = {"image": image, "captions": [], "image_id": image_id}
            row = rows.setdefault(image_id if is_path else id(image), row)
            row["captions"] += arrow.caption_list(captions, image_id, name)
        return cls.from_rows(rows.values(), name, allow_urls=allow_urls)

    @classmethod
    def _checked(
        cls, texts: datasets.Dataset, name: str, images: ImageColumn | ImageParts | None = None
    ) -> CaptionDataset:
        if images is None:
            missing = {"image", "captions", "image_id"} - set(texts.column_names)
            if missing:
                raise DataError(
                    f"{name}: the columns {sorted(missing)} are missing; the file was not written "
                    "by captionkit. Delete it, and it is made anew."
                )
            images = ImageColumn(texts.select_columns(["image"]))
            texts = texts.select_columns(_TEXTS)
        self = cls(images, texts, name)
        arrow.check(self.texts_table(), name)
        return self

    # ---- reading -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        row = self._row(index)
        texts = self._texts[row]
        return Example(self.images[row], tuple(texts["captions"]), texts["image_id"])

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        captions = int(self.caption_counts().sum())
        return f"CaptionDataset({self.name!r}, {len(self):,} images, {captions:,} captions)"

    def source(self, index: int) -> ImageSource:
        """What one image is opened from, without touching its captions."""
        return self.images[self._row(index)]

    def captions_of(self, index: int) -> tuple[str, ...]:
        """The captions of one image, without touching the image."""
        return tuple(self._texts[self._row(index)]["captions"])

    @property
    def has_captions(self) -> bool:
        """Whether there are captions: the images of a test split may all be without."""
        return bool(self._texts[0]["captions"])

    def require_captions(self) -> None:
        """Raise DataError where there are none."""
        if not self.has_captions:
            raise DataError(
                f"{self.name} has no captions, to train on or to score against. To have its images "
                "captioned, evaluate it with no metrics (metrics=(), or --metrics with no name)."
            )

    @property
    def image_ids(self) -> list[str]:
        """The ids of all images, in order."""
        return self.texts_table()["image_id"].to_pylist()

    def caption_counts(self) -> np.ndarray:
        """How many captions each image has: `(images,)`, int64."""
        import pyarrow.compute as pc

        return pc.list_value_length(self.texts_table()["captions"]).to_numpy().astype(np.int64)

    def all_captions(self) -> list[str]:
        """Every caption of every image, in order."""
        import pyarrow.compute as pc

        return pc.list_flatten(self.texts_table()["captions"]).to_pylist()

    # ---- parts ---------------------------------------------------------------------------------

    def select(self, indices: Sequence[int] | np.ndarray) -> CaptionDataset:
        """The images at these positions, each at most once, in this order."""
        rows = np.asarray(indices, dtype=np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        if len(np.unique(rows)) < len(rows):
            raise DataError(f"{self.name}: an image was selected twice.")
        outside = rows[(rows < 0) | (rows >= len(self))]
        if outside.size:
            raise IndexError(f"{self.name} has {len(self)} images, asked for number {outside[0]}")
        return CaptionDataset(self.images.select(rows), self._texts.select(rows), self.name)

    def first(self, count: int) -> CaptionDataset:
        """The first `count` images, or all where there are fewer."""
        return self if count >= len(self) else self.select(range(count))

    def only_first_caption(self) -> CaptionDataset:
        """The same images, each with its first caption alone."""
        if not self.has_captions:
            return self
        counts = self.caption_counts()
        first = np.zeros(int(counts.sum()), dtype=bool)
        first[(np.cumsum(counts) - counts)[counts > 0]] = True
        return self.keep_captions(first)

    def keep_captions(self, kept: np.ndarray) -> CaptionDataset:
        """Those captions that a mask over `all_captions` keeps, without images that lose all."""
        import datasets
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self.texts_table()
        before = self.caption_counts()
        images = np.repeat(np.arange(len(self)), before)
        counts = np.bincount(images[kept], minlength=len(self))
        rows = np.flatnonzero((counts > 0) | (before == 0))
        captions = pc.list_flatten(table["captions"]).filter(pa.array(kept))
        offsets = np.concatenate([[0], np.cumsum(counts[rows])]).astype(np.int32)
        lists = pa.ListArray.from_arrays(offsets, captions.combine_chunks())
        table = pa.table({"captions": lists, "image_id": table["image_id"].take(pa.array(rows))})
        texts = datasets.Dataset(datasets.table.InMemoryTable(table))
        remaining = self.images if len(rows) == len(self) else self.images.select(rows)
        return CaptionDataset(remaining, texts, self.name)

    def map_captions(self, change: Callable[[str], str]) -> CaptionDataset:
        """The same images, with what a function makes of each caption. Raises DataError."""
        import datasets
        import pyarrow as pa

        table = self.texts_table()
        offsets = np.concatenate([[0], np.cumsum(self.caption_counts())]).astype(np.int32)
        changed = pa.array([change(caption) for caption in self.all_captions()], pa.string())
        lists = pa.ListArray.from_arrays(offsets, changed)
        table = pa.table({"captions": lists, "image_id": table["image_id"]})
        texts = datasets.Dataset(datasets.table.InMemoryTable(table))
        if self.has_captions:
            arrow.check(table, self.name)
        return CaptionDataset(self.images, texts, self.name, self.mixture)

    def split(
        self, test_size: float, seed: int, groups: Sequence[Any] | None = None
    ) -> tuple[CaptionDataset, CaptionDataset]:
        """(train, held out): `test_size` of the images, rounded up, drawn from the seed.

        An image's side depends on its id alone, not on its place in the dataset. Both parts keep
        the order. `groups`: a key for each image; images with equal keys are on the same side, and
        the whole group of the last image that is drawn is held out.
        """
        count = math.ceil(round(test_size * len(self), 6))
        if not 0 < count < len(self):
            raise DataError(
                f"{self.name} has {len(self)} image{'s' * (len(self) != 1)}: "
                f"test_size={test_size} leaves no image for "
                f"{'training' if count else 'validation'}."
            )
        held_out = order.held_out(self.image_ids, count, seed, groups)
        if len(held_out) == len(self):
            raise DataError(
                f"{self.name}: all {len(self)} images are the same picture, so none can be held "
                "out. Set test_size=0, or group_by_content=False."
            )
        return self.select(np.delete(np.arange(len(self)), held_out)), self.select(held_out)

    # ---- rows ----------------------------------------------------------------------------------

    def _row(self, index: int) -> int:
        row = operator.index(index)
        row = row + len(self) if row < 0 else row
        if not 0 <= row < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, asked for number {index}")
        return row

    def texts_table(self) -> Any:
        """Captions (`list<string>`) and image_ids of all images as a `pyarrow.Table`."""
        # not [:], which gathers what was selected row by row
        table, rows = self._texts.data.table, self._texts._indices
        return table if rows is None else table.take(rows.column(0))


def cache_dir() -> Path:
    """Where captionkit keeps what it made: $CAPTIONKIT_CACHE, else below the user's cache."""
    if chosen := os.environ.get("CAPTIONKIT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "captionkit"
