"""The arguments of a captioner's methods, checked; the same for every backend."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from captionkit.errors import ConfigError
from captionkit.recipe import Decoding
from captionkit.settings import unknown_setting


def check_arguments(
    defaults: Mapping[str, Any], decoding: Mapping[str, Any], batch_size: int
) -> Decoding:
    """The decoding settings of a call: those given, the checkpoint's, and the library's.

    Raises ConfigError for a setting that does not exist or is not possible.
    """
    known = [field.name for field in fields(Decoding)]
    for name in decoding:
        if name not in known:
            raise unknown_setting(name, [*known, "batch_size", "token_probabilities", "seeds"])
    check_batch_size(batch_size)
    return Decoding(**{**defaults, **decoding})


def check_batch_size(batch_size: int) -> None:
    """Raise ConfigError unless it is a whole number from 1 on."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(
            f"batch_size={batch_size!r} is not possible: it must be a whole number, at least 1."
        )


def check_seeds(seeds: Sequence[int] | None, images: int) -> list[int] | None:
    """The seeds as integers, one an image; None where there are none."""
    if seeds is None:
        return None
    try:
        checked = [operator.index(seed) for seed in seeds]
    except TypeError:
        raise ConfigError(
            f"seeds={seeds!r} is not possible: it must be a list of integers, one for each image."
        ) from None
    if len(checked) != images:
        raise ConfigError(
            f"There are {images} images and {len(checked)} seeds: give one seed for each image."
        )
    return checked


def caption_lists(
    captions: Sequence[str | Sequence[str]], images: int
) -> tuple[list[str], list[int]]:
    """All captions that `loss` was given, and for each the number of its image.

    Raises ConfigError where there are not as many entries as images.
    """
    if len(captions) != images:
        raise ConfigError(
            f"There are {images} images and captions for {len(captions)}: give one caption or a "
            "list of captions for each image."
        )
    many = [[entry] if isinstance(entry, str) else list(entry) for entry in captions]
    owners = [row for row, texts in enumerate(many) for _ in texts]
    return [text for texts in many for text in texts], owners


def draw_seed(seed: int, lane: int) -> int:
    """64 random bits for the n-th of the captions that are drawn for one image."""
    digest = hashlib.blake2b(f"{seed},{lane}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
