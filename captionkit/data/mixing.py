"""Several sources in one dataset, each shown in proportion to its weight."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from captionkit.data.content import warn_of_shared
from captionkit.data.image_column import ImageParts
from captionkit.data.order import caption_index, every_caption, permutation
from captionkit.errors import ConfigError
from captionkit.recipe import DataConfig
from captionkit.settings import unknown_setting

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset

# what belongs to one source, and what to the mixture as a whole
_OF_A_SOURCE = (
    "dataset", "data_dir", "dataset_id", "dataset_config", "train_file", "validation_file",
    "test_file", "max_train_samples", "max_eval_samples",
)  # fmt: skip
_OF_THE_WHOLE = (
    "mix", "mix_epoch_images", "captions", "on_bad_image", "streaming", "shuffle_buffer",
    "group_by_content", "split",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One entry of `mix`: its name, which its image ids begin with, its weight and settings."""

    name: str
    weight: float
    config: DataConfig


@dataclass(frozen=True)
class Mixture:
    """How often the sources of a dataset are shown.

    names, weights: of the sources; ends: where in the dataset each one's images end;
    epoch_images: visits in an epoch, None: as many as without weights.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    ends: tuple[int, ...]
    epoch_images: int | None = None

    def visits(
        self,
        dataset: CaptionDataset,
        captions: Literal["random", "first", "all"],
        seed: int,
        epoch: int,
    ) -> np.ndarray:
        """The epoch's (image, caption) pairs in order: int64 `(visits, 2)`.

        Each source has the same number of visits in every epoch, in proportion to its weight. It
        goes on where the epoch before left it: none of its images comes again before all have
        come, and each time through them they are in another order, with captions drawn anew.
        """
        ids, counts = dataset.image_ids, dataset.caption_counts()
        starts = (0, *self.ends[:-1])
        units = [
            every_caption(counts[a:b])
            if captions == "all"
            else (np.arange(b - a), np.zeros(b - a, dtype=np.int64))
            for a, b in zip(starts, self.ends, strict=True)
        ]
        quotas = self.quotas([len(images) for images, _ in units])
        turns = np.repeat(np.arange(len(quotas)), quotas)[permutation(sum(quotas), seed, epoch)]
        pairs = np.empty((len(turns), 2), dtype=np.int64)
        for s, (quota, first, (images, chosen)) in enumerate(
            zip(quotas, starts, units, strict=True)
        ):
            numbers = np.arange(epoch * quota, (epoch + 1) * quota)
            rounds, places = np.divmod(numbers, len(images))
            drawn = np.empty((quota, 2), dtype=np.int64)
            for round_ in np.unique(rounds).tolist():
                order = permutation(len(images), seed, f"{round_}/{self.names[s]}")
                mine = rounds == round_
                unit = order[places[mine]]
                drawn[mine] = np.stack([first + images[unit], chosen[unit]], axis=1)
            if captions == "random":
                drawn[:, 1] = [
                    caption_index(seed, round_, ids[image], int(counts[image]))
                    for round_, image in zip(rounds.tolist(), drawn[:, 0].tolist(), strict=True)
                ]
            pairs[turns == s] = drawn
        return pairs

    def quotas(self, sizes: Sequence[int]) -> list[int]:
        """Visits an epoch of each source, by largest remainders; raises ConfigError for none."""
        total = self.epoch_images or sum(sizes)
        exact = np.array(self.weights) / sum(self.weights) * total
        quotas = np.floor(exact + 1e-9).astype(np.int64)
        rest = np.argsort(quotas - exact, kind="stable")[: total - int(quotas.sum())]
        quotas[rest] += 1
        for name, quota in zip(self.names, quotas.tolist(), strict=True):
            if not quota:
                raise ConfigError(
                    f"The weight of {name} in mix gives it none of the {total:,} images of an "
                    "epoch. Raise the weight, or mix_epoch_images."
                )
        return quotas.tolist()


def load_mixture(
    config: DataConfig,
    load: Callable[[DataConfig], tuple[CaptionDataset, CaptionDataset | None]],
) -> tuple[CaptionDataset, CaptionDataset | None]:
    """(train, shown by weight; the validation images of all sources). load: those of one."""
    parts = [(source, *load(source.config)) for source in sources(config)]
    train = union([(source, part) for source, part, _ in parts], config, weighted=True)
    held_out = [(source, part) for source, _, part in parts if part is not None]
    validation = union(held_out, config) if held_out else None
    if validation is not None and config.group_by_content:
        warn_of_shared(train, validation)
    return train, validation


def load_part(
    config: DataConfig, load: Callable[[DataConfig], CaptionDataset | None]
) -> CaptionDataset | None:
    """One split of all sources that have it, one after the other; None where none has.

    load: that of one.
    """
    parts = [(source, load(source.config)) for source in sources(config)]
    found = [(source, part) for source, part in parts if part is not None]
    return union(found, config) if found else None


def sources(config: DataConfig) -> list[Source]:
    """The entries of `mix`, checked; what they leave out they have from the whole."""
    for name in _OF_A_SOURCE:
        if getattr(config, name) not in ("", None):
            raise ConfigError(f"{name} beside mix: say it in that entry of mix which it is for.")
    if config.streaming:
        raise ConfigError("A mixture cannot be streamed: set streaming=False.")
    inherited = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(DataConfig)
        if f.name not in ("mix", "mix_epoch_images")
    }
    found = []
    for number, entry in enumerate(config.mix, start=1):
        where = f"mix, entry {number}"
        known = [f.name for f in dataclasses.fields(DataConfig) if f.name not in _OF_THE_WHOLE]
        for name in entry:
            if name in _OF_THE_WHOLE:
                raise ConfigError(f"In {where}: {name!r} is the same for all sources: beside mix.")
            if name not in (*known, "weight"):
                raise ConfigError(f"In {where}: {unknown_setting(str(name), [*known, 'weight'])}")
        weight = entry.get("weight", 1.0)
        if (
            isinstance(weight, bool)
            or not isinstance(weight, (int, float))
            or not (0 < weight < float("inf"))
        ):
            raise ConfigError(f"In {where}: weight={weight!r} is not possible: a number above 0.")
        own = {name: value for name, value in entry.items() if name != "weight"}
        try:
            settings = DataConfig(**{**inherited, **own})
        except ConfigError as error:
            raise ConfigError(f"In {where}: {error}") from None
        found.append(Source(_name(settings), float(weight), settings))
    return _numbered(found)


def union(
    parts: Sequence[tuple[Source, CaptionDataset]], config: DataConfig, weighted: bool = False
) -> CaptionDataset:
    """The datasets of sources one after the other, ids with the source's name in front."""
    import datasets
    import pyarrow as pa

    from captionkit.data.dataset import CaptionDataset

    tables = []
    for source, part in parts:
        ids = pa.array([f"{source.name}/{image_id}" for image_id in part.image_ids], pa.string())
        captions = part.texts_table()["captions"]
        tables.append(pa.table({"captions": captions, "image_id": ids}))
    texts = datasets.Dataset(datasets.table.InMemoryTable(pa.concat_tables(tables)))
    mixture = None
    if weighted:
        mixture = Mixture(
            tuple(source.name for source, _ in parts),
            tuple(source.weight for source, _ in parts),
            tuple(np.cumsum([len(part) for _, part in parts]).tolist()),
            config.mix_epoch_images,
        )
        every = config.captions == "all"
        sizes = [int(p.caption_counts().sum()) if every else len(p) for _, p in parts]
        mixture.quotas(sizes)  # a weight that is too small is found out now
    images = ImageParts([part.images for _, part in parts])
    return CaptionDataset(images, texts, " + ".join(part.name for _, part in parts), mixture)


def _name(config: DataConfig) -> str:
    if config.dataset not in ("", "hub", "imagefolder", "csv", "jsonl", "parquet", "webdataset"):
        return config.dataset
    place = config.dataset_id or config.data_dir or config.train_file or config.validation_file
    name = Path(str(place)).name if not config.dataset_id else config.dataset_id
    return name or config.dataset or "data"


def _numbered(found: list[Source]) -> list[Source]:
    """Names that occur twice get a number, so that ids stay apart."""
    counts = Counter(source.name for source in found)
    seen: Counter[str] = Counter()
    result: list[Any] = []
    for source in found:
        if counts[source.name] > 1:
            seen[source.name] += 1
            source = dataclasses.replace(source, name=f"{source.name}-{seen[source.name]}")
        result.append(source)
    return result
