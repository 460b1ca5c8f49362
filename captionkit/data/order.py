"""What an epoch visits, as pure functions of the seed: the same on every backend and machine.

No random number generator of any library is used, since their streams change between versions.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset


def visits(
    dataset: CaptionDataset, captions: Literal["random", "first", "all"], seed: int, epoch: int
) -> np.ndarray:
    """The epoch's (image, caption) pairs in order: int64 `(visits, 2)`, indices into the dataset.

    "random": each image once, with one of its captions; "first": with its first; "all": every
    caption once, shuffled over all pairs.
    """
    if captions == "all":
        counts = dataset.caption_counts()
        images = np.repeat(np.arange(len(dataset)), counts)
        chosen = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
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


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers 0 .. count - 1 in the epoch's order: int64 `(count,)`.

    Sorts by the outputs of SplitMix64 (Steele et al., OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        state = np.uint64(_hash("order", seed, epoch)) + np.arange(count, dtype=np.uint64) * (
            np.uint64(0x9E3779B97F4A7C15)
        )
        mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return np.argsort(mixed, kind="stable").astype(np.int64)


def caption_index(seed: int, epoch: int, image_id: str, count: int) -> int:
    """Which of its `count` captions an image shows in an epoch, each equally probable."""
    return _hash("caption", seed, epoch, image_id) % count


def held_out(image_ids: list[str], count: int, seed: int) -> np.ndarray:
    """Positions of the `count` images that are held out: sorted int64 `(count,)`.

    An image is drawn by the hash of its id, whatever its place in the list.
    """
    hashes = [_hash("split", seed, image_id) for image_id in image_ids]
    order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
    return np.sort(order[:count]).astype(np.int64)


def _hash(*parts: object) -> int:
    text = "/".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
