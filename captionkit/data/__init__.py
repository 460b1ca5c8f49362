"""Datasets by name: finding the source, its splits, and what is held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from captionkit.data.shards import SPLIT_WORDS
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig
from captionkit.settings import unknown_setting

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.data.streaming import StreamedDataset

    Source: TypeAlias = Callable[[DataConfig, str], CaptionDataset | StreamedDataset | None]

IN_MEMORY = "in-memory"
_VALIDATION = SPLIT_WORDS["validation"]


def load_dataset(
    name: Any = "", split: str = "train", seed: int = 42, **settings: Any
) -> CaptionDataset:
    """A dataset by the name of its source; `settings` are the other fields of `DataConfig`.

    Where the source has no validation split, "validation" is `test_size` of the training images,
    drawn from the seed, and "train" the rest. `name` may also be a `CaptionDataset`, a
    `datasets.Dataset` or a list of (image, caption) pairs: then it is the whole of it.

    Raises ConfigError, DataError or HubError.
    """
    known = [f.name for f in dataclasses.fields(DataConfig) if f.name not in ("dataset", "split")]
    for setting in settings:
        if setting not in known:
            raise unknown_setting(setting, known)
    config = DataConfig(dataset=name if isinstance(name, str) else IN_MEMORY, **settings)
    dataset: Any
    if config.mix:
        what, dataset = "mixture", _one_split_of_a_mixture(config, split, seed)
    else:
        config, source = find_source(config, None if isinstance(name, str) else name)
        what = f"dataset {config.dataset!r}"
        if isinstance(name, (str, dict)):
            dataset = _one_split(config, source, split, seed)
        else:
            dataset = _limited(_read(source, config, "train"), config, split)
    if dataset is None:
        held_out = ", and test_size=0 holds none out" if split in _VALIDATION else ""
        raise DataError(f"The {what} has no split {split!r}{held_out}.")
    return dataset


def load_splits(
    config: DataConfig, seed: int, in_memory: Any = None
) -> tuple[CaptionDataset, CaptionDataset | None]:
    """(train, validation) of a configuration; validation is None where there is none.

    `in_memory` is a dataset to take instead of the one that the configuration names. Raises
    ConfigError, DataError or HubError.
    """
    if config.mix:
        if in_memory is not None:
            raise ConfigError("Data in memory cannot be beside mix: give one of them.")
        from captionkit.data.mixing import load_mixture

        return load_mixture(config, lambda part: load_splits(part, seed))
    config, source = find_source(config, in_memory)
    train, validation = _train_and_validation(config, seed, source)
    return _limited(train, config, "train"), _limited(validation, config, "validation")


def find_source(config: DataConfig, in_memory: Any) -> tuple[DataConfig, Source]:
    """The configuration with its source's name in it, and the source."""
    if in_memory is not None:
        from captionkit.data.memory import from_memory

        config = dataclasses.replace(config, dataset=config.dataset or IN_MEMORY)
        return config, lambda config, split: from_memory(in_memory, config, split)
    from captionkit.registry import get_dataset

    config = _named(config)
    return config, get_dataset(config.dataset)


def _named(config: DataConfig) -> DataConfig:
    if not config.dataset:
        return dataclasses.replace(config, dataset=_guess(config))
    if "/" not in config.dataset:
        return config
    if Path(config.dataset).exists():
        setting = "data_dir" if Path(config.dataset).is_dir() else "train_file"
        raise ConfigError(
            f"dataset={config.dataset!r} is a path. Give it as {setting}; dataset is the name of a "
            "source, or a hub id."
        )
    if config.dataset_id not in (None, config.dataset):
        raise ConfigError(
            f"dataset={config.dataset!r} and dataset_id={config.dataset_id!r} name two datasets."
        )
    return dataclasses.replace(config, dataset="hub", dataset_id=config.dataset)


def _guess(config: DataConfig) -> str:
    from captionkit.data import parquet, webdataset
    from captionkit.data.coco import is_coco
    from captionkit.data.flickr import flickr_name
    from captionkit.data.shards import holds_shards
    from captionkit.data.tables import CSV_ENDINGS, JSON_ENDINGS
    from captionkit.registry import names

    by_ending = {
        "csv": CSV_ENDINGS, "jsonl": JSON_ENDINGS, "parquet": parquet.ENDINGS,
        "webdataset": webdataset.ENDINGS,
    }  # fmt: skip
    file = config.train_file or config.validation_file or config.test_file
    if file:
        for name, endings in by_ending.items():
            if file.lower().endswith(endings) or holds_shards(Path(file), endings):
                return name
        if config.data_dir and is_coco(Path(config.data_dir)):
            return "coco"  # a list of ids
        known = [ending for endings in by_ending.values() for ending in endings]
        raise ConfigError(
            f"{file!r} should end in {', '.join(known)}; or say with dataset what it is."
        )
    if config.data_dir:
        folder = Path(config.data_dir)
        if is_coco(folder):
            return "coco"
        shards = [n for n in ("parquet", "webdataset") if holds_shards(folder, by_ending[n])]
        return flickr_name(folder) or (shards[0] if shards else "imagefolder")
    if config.dataset_id:
        return "hub"
    raise ConfigError(
        f"Say which data to use: dataset (one of {', '.join(names('datasets'))}, or a hub id such "
        "as user/my-captions), data_dir, or train_file."
    )


def _train_and_validation(config: DataConfig, seed: int, source: Source) -> tuple[Any, Any]:
    # who trains on the validation split cannot validate on it as well
    on_validation = config.split in _VALIDATION
    train = _read(source, config, "validation" if on_validation else config.split)
    if train is None:
        raise DataError(f"The dataset {config.dataset!r} has no split {config.split!r}.")
    if config.streaming:
        from captionkit.data.streaming import with_validation

        return with_validation(
            config, train, lambda part, name: None if on_validation else _read(source, part, name)
        )
    train.require_captions()
    validation = None if on_validation else _read(source, config, "validation")
    if validation is not None:
        if config.group_by_content:
            from captionkit.data.content import warn_of_shared

            warn_of_shared(train, validation)
        return train, validation
    if not config.test_size:
        return train, None
    groups = None
    if config.group_by_content:
        from captionkit.data.content import content_hashes

        groups = content_hashes(train)
    return train.split(config.test_size, seed, groups)


def _read(source: Source, config: DataConfig, split: str) -> Any:
    """A split as the source gives it, without what the filters leave out."""
    from captionkit.data.filters import filtered
    from captionkit.data.streaming import StreamedDataset

    dataset = source(config, split)
    if dataset is None or isinstance(dataset, StreamedDataset):
        return dataset
    if config.streaming:
        raise ConfigError(
            f"The dataset {config.dataset!r} cannot be streamed; hub sets, parquet and webdataset "
            "can. Leave streaming out."
        )
    return filtered(dataset, config)


def _one_split(config: DataConfig, source: Source, split: str, seed: int) -> Any:
    """A split with its limit, or None where there is none."""
    dataset: Any
    if split == "train" and config.streaming and config.max_eval_samples is None:
        dataset = _read(source, config, "train")  # which images would be held out nobody says
    elif split == "train":
        dataset = _train_and_validation(config, seed, source)[0]
    elif split in _VALIDATION:
        # its own one is loaded alone: the training images need not be there
        own = None if config.streaming else _read(source, config, "validation")
        dataset = own or _train_and_validation(config, seed, source)[1]
    else:
        dataset = _read(source, config, split)
    return _limited(dataset, config, split)


def _one_split_of_a_mixture(config: DataConfig, split: str, seed: int) -> CaptionDataset | None:
    from captionkit.data.mixing import load_mixture, load_part

    if split == "train":
        return load_mixture(config, lambda part: load_splits(part, seed))[0]
    return load_part(config, lambda part: _one_split(*find_source(part, None), split, seed))


def _limited(dataset: Any, config: DataConfig, split: str) -> Any:
    if dataset is None:
        return None
    count = config.max_train_samples if split == "train" else config.max_eval_samples
    if count is not None:
        dataset = dataset.first(count)
    if config.captions == "first" and hasattr(dataset, "only_first_caption"):  # no stream
        return dataset.only_first_caption()
    return dataset
