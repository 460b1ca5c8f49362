"""From what a user names to a listing of its images, as leniently as the source allows."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data import find_source
from captionkit.data.paths import data_folder, exists
from captionkit.data.shards import SPLIT_WORDS
from captionkit.doctor.coco import list_coco
from captionkit.doctor.folder import list_folder
from captionkit.doctor.kinds import KINDS
from captionkit.doctor.listing import SPLITS, Entry, Listing
from captionkit.doctor.rows import list_table
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig
from captionkit.registry import names
from captionkit.settings import nearest

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.types import ImageSource

_TABLES = ("csv", "jsonl")
_STRICT = (
    "This source can only be read as training reads it: captions and rows that it refuses are "
    "told as its own error, one at a time."
)


def list_dataset(dataset: Any, settings: dict[str, Any]) -> Listing:
    """List what `examine` was given. Raises DataError where there is nothing to look at.

    Folders with .txt files or metadata, csv and jsonl files and COCO's own layout are read on past
    what is wrong in them; afterwards the source itself is asked whether it takes them.
    """
    split = settings.get("split")
    split = "validation" if split in SPLIT_WORDS["validation"] else split
    splits = (split,) if split else SPLITS
    in_memory = None if isinstance(dataset, str) else dataset
    config = DataConfig(**_with_path(dataset, settings) if in_memory is None else settings)
    config, source = find_source(config, in_memory)

    listing = None if in_memory is not None else _leniently(config, splits)
    if listing is None:
        listing = _strictly(config, source, splits)
    elif not any(KINDS[kind].level == "error" for kind in listing.cases):
        _ask_source(config, source, splits, listing)
    if not (listing.entries or listing.cases):
        where = f" in its split {split!r}" if split else ""
        raise DataError(f"{listing.name}: there are no images{where}.")
    return listing


def _with_path(dataset: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in which a path is data_dir or train_file; a source's or hub name is `dataset`."""
    path = Path(dataset).expanduser()
    if not path.exists() and any(sign in dataset for sign in "{*"):  # a pattern of shards
        return {**settings, "train_file": dataset}
    if not dataset or dataset in names("datasets") or not path.exists():
        a_path = dataset.startswith((".", "/", "~")) or dataset.endswith("/")
        if a_path or (Path(dataset).suffix and "/" not in dataset):
            raise DataError(f"There is no file or folder {dataset}.")
        if dataset and "/" not in dataset and dataset not in names("datasets"):
            raise ConfigError(
                f"There is no file or folder {dataset!r}, nor a source of that name"
                f"{nearest(dataset, names('datasets'))} Sources: {', '.join(names('datasets'))}; "
                "or a hub id such as user/name."
            )
        return {**settings, **({"dataset": dataset} if dataset else {})}
    setting = "data_dir" if path.is_dir() else "train_file"
    if settings.get(setting):
        raise ConfigError(f"{dataset!r} and {setting}={settings[setting]!r} name two datasets.")
    return {**settings, setting: str(path)}


def _leniently(config: DataConfig, splits: tuple[str, ...]) -> Listing | None:
    if config.dataset in ("imagefolder", "coco") and config.data_dir:
        data_folder(config.data_dir, config.dataset)
        lenient = list_folder if config.dataset == "imagefolder" else list_coco
        return lenient(config, splits)
    if config.dataset in _TABLES and (config.train_file or config.validation_file):
        return _list_tables(config, splits)
    return None


def _list_tables(config: DataConfig, splits: tuple[str, ...]) -> Listing:
    files = {
        "train": config.train_file,
        "validation": config.validation_file,
        "test": config.test_file,
    }
    given = {split: files[split] for split in splits if files.get(split)}
    listing = Listing(f"{config.dataset} {', '.join(map(str, given.values()))}")
    if config.data_dir:
        data_folder(config.data_dir, config.dataset)
    for split, name in given.items():
        file = Path(str(name))
        folder = Path(config.data_dir).absolute() if config.data_dir else file.absolute().parent
        list_table(file, folder, split, config, listing)
    return listing


def _strictly(config: DataConfig, source: Any, splits: tuple[str, ...]) -> Listing:
    given = config.dataset_id or config.data_dir or config.train_file
    listing = Listing(f"{config.dataset} {given}" if given else config.dataset)
    listing.remarks.append(_STRICT)
    # missing files are found one by one below; here they would be an error of the whole
    config = DataConfig(**{**vars(config), "on_bad_image": "skip"})
    for split in splits:
        try:
            dataset = source(config, split)
        except DataError as error:
            if "has no split" not in str(error):  # it need not have all of them
                listing.add("load", split, str(error))
            continue
        if dataset is not None:
            listing.entries += _entries(dataset, split)
    return listing


def _entries(dataset: CaptionDataset, split: str) -> list[Entry]:
    return [
        Entry(
            split, image_id, dataset.captions_of(i), functools.partial(_source_of, dataset, i)
        )
        for i, image_id in enumerate(dataset.image_ids)
    ]  # fmt: skip


def _source_of(dataset: CaptionDataset, index: int) -> ImageSource:
    return dataset[index].source


def _ask_source(config: DataConfig, source: Any, splits: tuple[str, ...], listing: Listing) -> None:
    """Whether the source takes what looked right here: it has the last word.

    What `examine` finds better itself, captions and missing files, is left to it.
    """
    listed = {entry.split for entry in listing.entries}
    # who gives a file for validation alone may want to evaluate
    asked = [split for split in splits if split in listed or config.dataset not in _TABLES]
    complete = all(
        entry.captions and all(text.strip() for text in entry.captions)
        for entry in listing.entries
    )  # fmt: skip
    if not complete:
        return
    config = DataConfig(**{**vars(config), "on_bad_image": "skip"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images that are not listed, found here as well
        for split in asked:
            try:
                source(config, split)
            except DataError as error:
                if not all(_is_missing(entry) for entry in listing.entries):
                    listing.add("load", split, str(error))


def _is_missing(entry: Entry) -> bool:
    return isinstance(entry.source, str) and not exists(Path(entry.source))
