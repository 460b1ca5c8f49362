"""Leaving out captions and images by their length and size: what was left out is said."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from captionkit.data.arrow import listed
from captionkit.data.content import image_size, image_sizes
from captionkit.errors import DataError
from captionkit.types import Example

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.recipe import DataConfig


def filtered(dataset: CaptionDataset, config: DataConfig) -> CaptionDataset:
    """The dataset without the captions and images that the settings leave out, and a warning.

    An image that loses all its captions is left out as well. Sizes are those of the files'
    headers; an image that cannot be read stays, for `on_bad_image` to decide about. Raises
    DataError where nothing is left.
    """
    return _by_size(_by_words(dataset, config), config)


def passing(example: Example, config: DataConfig) -> Example | None:
    """One example with the captions that the settings leave, or None if it is left out itself."""
    if _limits_words(config):
        counts = np.array([len(text.split()) for text in example.captions])
        kept = _within(counts, config.min_caption_words, config.max_caption_words)
        texts = tuple(text for text, stays in zip(example.captions, kept, strict=True) if stays)
        example = Example(example.source, texts, example.image_id)
    if example.captions and _limits_size(config):
        sizes = np.array([[int(side) for side in image_size(example.source).split("x")]])
        if not _fitting(sizes, config)[0]:
            return None
    return example if example.captions else None


def _by_words(dataset: CaptionDataset, config: DataConfig) -> CaptionDataset:
    if not _limits_words(config):
        return dataset
    counts = np.array([len(text.split()) for text in dataset.all_captions()])
    kept = _within(counts, config.min_caption_words, config.max_caption_words)
    if kept.all():
        return dataset
    what = f"captions {_range(config.min_caption_words, config.max_caption_words, 'words')}"
    if not kept.any():
        raise DataError(f"{dataset.name}: none of its {len(kept):,} captions is left: no {what}.")
    ids = np.array(dataset.image_ids, dtype=object)
    owners = np.repeat(np.arange(len(dataset)), dataset.caption_counts())
    without = np.bincount(owners[kept], minlength=len(dataset)) == 0
    message = f"{dataset.name}: only {what} are used: {(~kept).sum():,} of {len(kept):,} left out"
    if without.any():
        message += f", and with them the images that have no other: {listed(ids[without])}"
    else:
        message += f"; every image keeps one. They are of {listed(ids[np.unique(owners[~kept])])}"
    warnings.warn(f"{message}.", stacklevel=2)
    return dataset.keep_captions(kept)


def _by_size(dataset: CaptionDataset, config: DataConfig) -> CaptionDataset:
    if not _limits_size(config):
        return dataset
    kept = _fitting(image_sizes(dataset), config)
    if kept.all():
        return dataset
    what = f"images {_range(config.min_image_size, config.max_image_size, 'pixels')}"
    if not kept.any():
        raise DataError(f"{dataset.name}: none of its {len(kept):,} images is left: no {what}.")
    names = np.array(dataset.image_ids, dtype=object)[~kept]
    warnings.warn(f"{dataset.name}: only {what} are used, left out: {listed(names)}.", stacklevel=2)
    return dataset.select(np.flatnonzero(kept))


def _fitting(sizes: np.ndarray, config: DataConfig) -> np.ndarray:
    fits = _within(sizes.min(axis=1), config.min_image_size, None)
    fits &= _within(sizes.max(axis=1), None, config.max_image_size)
    return fits | (sizes.max(axis=1) == 0)


def _within(values: np.ndarray, least: int | None, most: int | None) -> np.ndarray:
    fits = np.ones(len(values), dtype=bool)
    if least is not None:
        fits &= values >= least
    if most is not None:
        fits &= values <= most
    return fits


def _limits_words(config: DataConfig) -> bool:
    return config.min_caption_words is not None or config.max_caption_words is not None


def _limits_size(config: DataConfig) -> bool:
    return config.min_image_size is not None or config.max_image_size is not None


def _range(least: int | None, most: int | None, unit: str) -> str:
    bounds = [f"at least {least:,}"] if least is not None else []
    bounds += [f"at most {most:,}"] if most is not None else []
    return f"of {' and '.join(bounds)} {unit}"
