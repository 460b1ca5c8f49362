"""What a user may hand over as `images`: one of them, or many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from captionkit.errors import ImageError

if TYPE_CHECKING:
    from captionkit.types import ImageSource


def as_list(images: Any) -> list[ImageSource]:
    """One image (path, URL, bytes, PIL image, array) or any iterable of them, as a list.

    An array of four dimensions is a batch, `(batch, height, width, channels)`.
    """
    if isinstance(images, (str, bytes, os.PathLike)) or hasattr(images, "getbands"):
        return [images]
    if hasattr(images, "ndim") and images.ndim < 4:
        return [images]
    try:
        return list(images)
    except TypeError:
        raise ImageError(
            f"Cannot caption {type(images).__name__!r}: give a path, a URL, bytes, a PIL image, an "
            "array (height, width, 3), or a list of these."
        ) from None


def to_encode(images: Any) -> list[ImageSource]:
    """The same, of which there is at least one. Raises ImageError."""
    listed = as_list(images)
    if not listed:
        raise ImageError("There is nothing to encode: expected one image or more, found none.")
    return listed
