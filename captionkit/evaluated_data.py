"""Which images `evaluate` captions: where a model is evaluated on its own data, those held out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from captionkit.data import load_dataset, load_splits
from captionkit.errors import ConfigError, DataError
from captionkit.recipe import DataConfig, Recipe

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset

_NAMED_BY = ("data_dir", "train_file", "dataset_id", "dataset_config")
_DIVIDED_BY = (
    "test_size", "group_by_content", "min_caption_words", "max_caption_words", "min_image_size",
    "max_image_size",
)  # fmt: skip


def evaluated_dataset(
    dataset: Any, data: Mapping[str, Any], seed: int | None, trained: Recipe | None
) -> CaptionDataset:
    """The images to evaluate, those of the split "validation" unless another is given.

    data: the fields of `DataConfig` that were given. trained: the recipe of the run that trained
    the model. `seed` and `test_size` are its by default; where the data are those that it was
    trained on, so are its filters and its split, and the images that it held out are found again.

    Raises ConfigError, DataError or HubError.
    """
    from captionkit.data.streaming import StreamedDataset

    if trained is not None:
        data = {"test_size": trained.data.test_size, **data}
        seed = trained.training.seed if seed is None else seed
    seed = 42 if seed is None else seed
    own = trained.data if trained and _is_same(trained.data, dataset, data) else None
    if own is not None:
        data = {name: getattr(own, name) for name in _DIVIDED_BY} | dict(data)
    examples: Any
    if own is not None and own.split != "train" and "split" not in data:
        examples = load_splits(DataConfig(dataset=dataset, split=own.split, **data), seed)[1]
        if examples is None:
            raise DataError(
                f"The model was trained on the split {own.split!r}, and nothing of it was held out."
                " Say with split what to evaluate."
            )
    else:
        examples = load_dataset(dataset, seed=seed, **{"split": "validation", **data})
    if isinstance(examples, StreamedDataset):
        if data.get("max_eval_samples") is None:
            raise ConfigError(
                "A stream has no length: set max_eval_samples=N to evaluate its first N images."
            )
        examples = examples.taken(data["max_eval_samples"])
    return examples


def _is_same(own: DataConfig, dataset: Any, data: Mapping[str, Any]) -> bool:
    if not isinstance(dataset, str) or (dataset and own.dataset and dataset != own.dataset):
        return False
    if tuple(data.get("mix", ())) != own.mix:
        return False
    return all(_place(data.get(name)) == _place(getattr(own, name)) for name in _NAMED_BY)


def _place(given: str | None) -> str | None:
    return os.path.abspath(os.path.expanduser(given)) if given else None
