"""What image files hold, as far as it is known without decoding them: a hash, and the size.

Looking costs a read of every image, so the answers are remembered in captionkit's cache for as long
as no file of the dataset changes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captionkit.data.arrow import listed
from captionkit.data.images import formats
from captionkit.whole_files import whole_file

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.types import ImageSource

TOO_LARGE = 2**31 - 1  # the side of a picture that Pillow refuses to open for its size
_THREADS = 8


def content_hashes(dataset: CaptionDataset) -> list[str]:
    """A key for each image: equal for equal bytes. One that cannot be read equals no other."""
    found = _remembered(dataset, "content", content_hash).tolist()
    ids = dataset.image_ids
    return [key or f"unreadable {ids[i]}" for i, key in enumerate(found)]


def image_sizes(dataset: CaptionDataset) -> np.ndarray:
    """Width and height in pixels as the headers say: int64 `(images, 2)`; 0: cannot be read."""
    sizes = _remembered(dataset, "size", image_size)
    return np.array([[int(side) for side in size.split("x")] for size in sizes.tolist()]).reshape(
        -1, 2
    )


def content_hash(source: ImageSource) -> str:
    """BLAKE2 of an image's encoded bytes, 128 bits in hex; empty where they cannot be read."""
    try:
        return hashlib.blake2b(_bytes(source), digest_size=16).hexdigest()
    except Exception:  # the policy on bad images decides about it where it is decoded
        return ""


def image_size(source: ImageSource) -> str:
    """ "640x480", as the header says; "0x0" where it cannot be read."""
    try:
        file = source if isinstance(source, (str, Path)) else io.BytesIO(_bytes(source))
        with Image.open(file, formats=formats()) as image:
            return f"{image.width}x{image.height}"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"{TOO_LARGE}x{TOO_LARGE}"
    except Exception:  # as above
        return "0x0"


def _bytes(source: Any) -> bytes:
    if isinstance(source, (bytes, bytearray)):
        return bytes(source)
    return (Path(source) if isinstance(source, str) else source).read_bytes()


# ---- remembering -------------------------------------------------------------------------------


def _remembered(
    dataset: CaptionDataset, what: str, look: Callable[[ImageSource], str]
) -> np.ndarray:
    """`look` at every image: `(images,)` of text; from the cache if no file has changed."""
    from captionkit.data.dataset import cache_dir

    key = _key(dataset)
    file = cache_dir() / "facts" / f"{what}-{key}.npy" if key else None
    if file is not None:
        with contextlib.suppress(OSError, ValueError, EOFError):
            known = np.load(file, allow_pickle=False)
            if len(known) == len(dataset):
                return known
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(
            _with_progress(
                pool.map(lambda i: look(dataset.source(i)), range(len(dataset))), dataset, what
            )
        )
    values = np.array(found, dtype=np.str_)
    if file is not None:
        # nowhere to keep it: looked at again next time
        with contextlib.suppress(OSError), whole_file(file) as partial, open(partial, "wb") as sink:
            np.save(sink, values)
    return values


def _key(dataset: CaptionDataset) -> str | None:
    """A hash of which files a dataset is made of; None where it has images that are no files."""
    stat = functools.cache(os.stat)
    digest = hashlib.blake2b(digest_size=16)
    for i in range(len(dataset)):
        source: Any = dataset.source(i)
        file = source if isinstance(source, str) else getattr(source, "archive", None)
        if file is None:
            return None
        try:
            status = stat(file)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"{source!r} {state}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _with_progress(items: Any, dataset: CaptionDataset, what: str) -> Any:
    from tqdm import tqdm

    from captionkit.processes import is_main_process

    # only where it takes long enough to be wondered about
    return tqdm(
        items, total=len(dataset), desc=f"{what} of images", unit="img", delay=3, leave=False,
        disable=None if is_main_process() else True,
    )  # fmt: skip


# ---- the same content twice --------------------------------------------------------------------


def warn_of_shared(train: CaptionDataset, validation: CaptionDataset) -> None:
    """Warn of validation images whose files are, byte for byte, training images as well."""
    ours = dict(zip(content_hashes(train), train.image_ids, strict=True))
    theirs = zip(content_hashes(validation), validation.image_ids, strict=True)
    shared = [f"{name} is {ours[key]}" for key, name in theirs if key in ours]
    if shared:
        warnings.warn(
            f"{validation.name}: images that are byte for byte in {train.name} as well: "
            f"{listed(shared)}. What is measured on them says nothing about new images.",
            stacklevel=2,
        )
