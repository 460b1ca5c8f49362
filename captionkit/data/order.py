"""What an epoch visits, as pure functions of the seed: the same on every backend and machine.

No random number generator of any library is used, since their streams change between versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset


def visits(
    dataset: CaptionDataset, captions: Literal["random", "first", "all"], seed: int, epoch: int
) -> np.ndarray:
    """The epoch's (image, caption) pairs in order: int64 `(visits, 2)`, indices into the dataset.

    "random": each image once, with one of its captions; "first": with its first; "all": every
    caption once, shuffled over all pairs. Of a mixture of sources: see `Mixture.visits`.
    """
    if dataset.mixture is not None:
        return dataset.mixture.visits(dataset, captions, seed, epoch)
    if captions == "all":
        images, chosen = every_caption(dataset.caption_counts())
    else:
        images = np.arange(len(dataset))
        chosen = np.zeros(len(dataset), dtype=np.int64)
        if captions == "random":
            drawn = zip(dataset.image_ids, dataset.caption_counts().tolist(), strict=True)
            chosen = np.fromiter(
                (caption_index(seed, epoch, image_id, count) for image_id, count in drawn),
                dtype=np.int64,
                count=len(dataset),
            )
    order = permutation(len(images), seed, epoch)
    return np.stack([images[order], chosen[order]], axis=1).astype(np.int64)


def visit_count(dataset: CaptionDataset, captions: Literal["random", "first", "all"]) -> int:
    """How many visits an epoch has: the length of `visits`, without drawing them."""
    if dataset.mixture is not None and dataset.mixture.epoch_images is not None:
        return dataset.mixture.epoch_images
    return int(dataset.caption_counts().sum()) if captions == "all" else len(dataset)


def every_caption(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each (image, caption) pair of images with so many captions: two int64 `(captions,)`."""
    images = np.repeat(np.arange(len(counts)), counts)
    return images, np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)


def permutation(count: int, seed: int, epoch: int | str) -> np.ndarray:
    """The numbers 0 .. count - 1 in the epoch's order: int64 `(count,)`.

    Sorts by the outputs of SplitMix64 (Steele et al., OOPSLA 2014).
    """
    keys = _splitmix64(_hash("order", seed, epoch), np.arange(count, dtype=np.uint64))
    return np.argsort(keys, kind="stable").astype(np.int64)


def buffer_slots(size: int, first: int, count: int, seed: int, epoch: int) -> np.ndarray:
    """Which slot of a shuffle buffer each of `count` items takes: int64 `(count,)` below `size`.

    first: the number of the first of them, counted over the epoch.
    """
    numbers = np.arange(first, first + count, dtype=np.uint64)
    keys = _splitmix64(_hash("buffer", seed, epoch), numbers)
    return (keys % np.uint64(size)).astype(np.int64)


def caption_index(seed: int, epoch: int, image_id: str, count: int) -> int:
    """Which of its `count` captions an image shows in an epoch, each equally probable."""
    return _hash("caption", seed, epoch, image_id) % count


def held_out(
    image_ids: list[str], count: int, seed: int, groups: Sequence[Any] | None = None
) -> np.ndarray:
    """Positions of the `count` images that are held out: sorted int64 `(count,)`.

    An image is drawn by the hash of its id, whatever its place in the list. `groups`: a key for
    each image. Images with equal keys are drawn together, by the first of their ids in
    alphabetical order, so that there may be a few more than `count`.
    """
    drawn_by = image_ids
    if groups is not None:
        first: dict[Any, str] = {}
        for key, image_id in zip(groups, image_ids, strict=True):
            first[key] = min(image_id, first.get(key, image_id))
        drawn_by = [first[key] for key in groups]
    hashes = np.array([_hash("split", seed, name) for name in drawn_by], dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    while (
        groups is not None
        and count < len(order)
        and (drawn_by[order[count]] == drawn_by[order[count - 1]])
    ):
        count += 1
    return np.sort(order[:count]).astype(np.int64)


def _hash(*parts: object) -> int:
    text = "/".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _splitmix64(start: int, numbers: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        state = np.uint64(start) + numbers * np.uint64(0x9E3779B97F4A7C15)
        mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
