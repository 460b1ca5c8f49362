"""Datasets by name: finding the source, its splits, and what is held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig
from captionkit.settings import unknown_setting

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset

_VALIDATION = ("validation", "valid", "val", "dev")


def load_dataset(
    name: str = "", split: str = "train", seed: int = 42, **settings: Any
) -> CaptionDataset:
    """A dataset by the name of its source; `settings` are the other fields of `DataConfig`.

    Where the source has no validation split, "validation" is `test_size` of the training images,
    drawn from the seed, and "train" the rest. Raises ConfigError, DataError or HubError.
    """
    known = [f.name for f in dataclasses.fields(DataConfig) if f.name not in ("dataset", "split")]
    for setting in settings:
        if setting not in known:
            raise unknown_setting(setting, known)
    config = resolve(DataConfig(dataset=name, **settings))
    if split in ("train", *_VALIDATION):
        train, validation = _train_and_validation(config, seed, only=split)
        dataset = train if split == "train" else validation
        if dataset is None:
            raise DataError(
                f"The dataset {config.dataset!r} has no validation split, and test_size=0 holds "
                "none out."
            )
    else:
        dataset = _required(config, split)
    limit = config.max_train_samples if split == "train" else config.max_eval_samples
    return _limited(dataset, config, limit)


def load_splits(config: DataConfig, seed: int) -> tuple[CaptionDataset, CaptionDataset | None]:
    """(train, validation) of a configuration; validation is None where there is none.

    Raises ConfigError, DataError or HubError.
    """
    train, validation = _train_and_validation(resolve(config), seed)
    assert train is not None
    return limit_splits(train, validation, config)


def hold_out(
    train: CaptionDataset, config: DataConfig, seed: int
) -> tuple[CaptionDataset, CaptionDataset | None]:
    """(train, validation) of a dataset that has no validation split of its own."""
    return train.split(config.test_size, seed) if config.test_size else (train, None)


def limit_splits(
    train: CaptionDataset, validation: CaptionDataset | None, config: DataConfig
) -> tuple[CaptionDataset, CaptionDataset | None]:
    """Apply `captions="first"`, `max_train_samples` and `max_eval_samples`."""
    limited = _limited(train, config, config.max_train_samples)
    if validation is None:
        return limited, None
    return limited, _limited(validation, config, config.max_eval_samples)


def resolve(config: DataConfig) -> DataConfig:
    """The same configuration with the source's name in it, guessed from the files if need be."""
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
    from captionkit.data.coco import is_coco
    from captionkit.data.tables import CSV_ENDINGS, JSON_ENDINGS
    from captionkit.registry import names

    file = config.train_file or config.validation_file or config.test_file
    if file:
        ending = Path(file).suffix.lower()
        if ending in CSV_ENDINGS:
            return "csv"
        if ending in JSON_ENDINGS:
            return "jsonl"
        raise ConfigError(
            f"{file!r} should end in {', '.join((*CSV_ENDINGS, *JSON_ENDINGS))}, or set dataset."
        )
    if config.data_dir:
        return "coco" if is_coco(Path(config.data_dir)) else "imagefolder"
    if config.dataset_id:
        return "hub"
    raise ConfigError(
        f"Say which data to use: dataset (one of {', '.join(names('datasets'))}, or a hub id such "
        "as user/my-captions), data_dir, or train_file."
    )


def _train_and_validation(
    config: DataConfig, seed: int, only: str = ""
) -> tuple[CaptionDataset | None, CaptionDataset | None]:
    # who trains on the validation split has none left to validate on
    own = None if config.split in _VALIDATION else _load(config, "validation")
    if own is not None and only in _VALIDATION:
        return None, own  # its training images need not be there
    train = _required(config, config.split)
    return (train, own) if own is not None else hold_out(train, config, seed)


def _required(config: DataConfig, split: str) -> CaptionDataset:
    dataset = _load(config, split)
    if dataset is None:
        raise DataError(f"The dataset {config.dataset!r} has no split {split!r}.")
    return dataset


def _load(config: DataConfig, split: str) -> CaptionDataset | None:
    from captionkit.registry import get_dataset

    return get_dataset(config.dataset)(config, split)


def _limited(dataset: CaptionDataset, config: DataConfig, count: int | None) -> CaptionDataset:
    if count is not None:
        dataset = dataset.first(count)
    return dataset.only_first_caption() if config.captions == "first" else dataset
