"""Data that is already in memory: a CaptionDataset, a datasets.Dataset, or a list of pairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from captionkit.data.dataset import CaptionDataset
from captionkit.data.hub import choose_split
from captionkit.errors import DataError
from captionkit.recipe import DataConfig


def from_memory(data: Any, config: DataConfig, split: str = "train") -> Any:
    """Whatever `finetune(dataset=...)` takes; None where it has no such split.

    A `datasets.DatasetDict` has the splits that it holds, anything else is "train". A stream of
    `datasets` becomes a `StreamedDataset`.
    """
    import datasets

    streams = data.values() if isinstance(data, dict) else [data]
    if any(isinstance(stream, datasets.IterableDataset) for stream in streams):
        if config.streaming:
            return choose_split(data, split, config, config.dataset)
        raise DataError(
            "This is a stream: it has no length and cannot be split. Load it without "
            "streaming=True, or say streaming=True here as well (and max_steps)."
        )
    if isinstance(data, (datasets.Dataset, dict)):
        return choose_split(data, split, config, config.dataset)
    if split != "train":
        return None
    if isinstance(data, CaptionDataset):
        return data
    if not isinstance(data, Iterable):
        raise DataError(
            "dataset should be the name of a source, a hub id, a datasets.Dataset, or a list of "
            f"(image, caption) pairs, found {type(data).__name__}. A folder is given as data_dir."
        )
    return CaptionDataset.from_pairs(data, config.dataset, config.allow_urls)
