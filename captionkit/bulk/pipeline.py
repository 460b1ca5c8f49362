"""Images to captions: threads decode the next images while the model captions these."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

from captionkit.bulk.item import Item
from captionkit.data.images import describe, open_image
from captionkit.data.loader import MOST_WORKERS, usable_cores
from captionkit.errors import ImageError
from captionkit.types import Caption, Captioner

Outcome = list[Caption] | ImageError


class _Decoded(NamedTuple):
    image: Any  # uint8 (height, width, 3) as the model takes it, or an RGB picture
    seed: int


def caption_items(
    captioner: Captioner,
    items: Iterable[Item],
    batch_size: int,
    decoding: Mapping[str, Any],
    seed: int = 0,
    workers: int | None = None,
) -> Generator[list[tuple[Item, Outcome]], None, None]:
    """Batches of (image, its captions, best first; or what is wrong with it), in order.

    No caption depends on its batch: a draw of sampling depends on `seed` and the image's pixels.
    At most two batches are decoded ahead.
    """
    workers = workers or min(MOST_WORKERS, usable_cores())
    sampling = decoding.get("do_sample", getattr(captioner, "defaults", {}).get("do_sample", False))
    prepare = _preprocessing(captioner)
    remaining = iter(items)
    ahead: deque[tuple[Item, Future[_Decoded | ImageError]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:

        def fill() -> None:
            for item in islice(remaining, 2 * batch_size + workers - len(ahead)):
                ahead.append(
                    (item, pool.submit(_decode, item, prepare, seed if sampling else None))
                )

        try:
            fill()
            while ahead:
                batch: list[tuple[Item, _Decoded | ImageError]] = []
                good = 0
                while ahead and good < batch_size and len(batch) < 8 * batch_size:
                    item, future = ahead.popleft()
                    fill()
                    outcome = future.result()
                    good += not isinstance(outcome, ImageError)
                    batch.append((item, outcome))
                yield _captioned(captioner, batch, batch_size, decoding, bool(sampling))
        finally:
            for _, future in ahead:
                future.cancel()


def _decode(item: Item, prepare: Any, seed: int | None) -> _Decoded | ImageError:
    """Open and preprocess one image, in a thread: Pillow leaves the others running."""
    if item.problem is not None:
        return ImageError(item.problem)
    source: Any = item.source
    try:
        image = prepare(open_image(source, allow_urls=True))
    except ImageError as error:
        return ImageError(str(error).removeprefix(f"Cannot read {describe(source)}: "))
    return _Decoded(image, 0 if seed is None else _seed_of(image, seed))


def _captioned(
    captioner: Captioner,
    batch: Sequence[tuple[Item, _Decoded | ImageError]],
    batch_size: int,
    decoding: Mapping[str, Any],
    sampling: bool,
) -> list[tuple[Item, Outcome]]:
    good = [decoded for _, decoded in batch if not isinstance(decoded, ImageError)]
    try:
        outcomes = iter(_captions(captioner, good, batch_size, decoding, sampling))
    except ImageError:
        # the model's preprocessing refuses one of them: it must not take the others along
        outcomes = iter([_alone(captioner, one, decoding, sampling) for one in good])
    return [
        (item, decoded if isinstance(decoded, ImageError) else next(outcomes))
        for item, decoded in batch
    ]


def _captions(
    captioner: Captioner,
    decoded: Sequence[_Decoded],
    batch_size: int,
    decoding: Mapping[str, Any],
    sampling: bool,
) -> list[Outcome]:
    if not decoded:
        return []
    count = decoding.get("num_return_sequences", 1)
    settings = {**decoding, "num_return_sequences": count}
    if sampling:
        settings["seeds"] = [one.seed for one in decoded]
    found = captioner.caption([one.image for one in decoded], batch_size=batch_size, **settings)
    return [found[i : i + count] for i in range(0, len(found), count)]


def _alone(
    captioner: Captioner, decoded: _Decoded, decoding: Mapping[str, Any], sampling: bool
) -> Outcome:
    try:
        return _captions(captioner, [decoded], 1, decoding, sampling)[0]
    except ImageError as error:
        return error


def _preprocessing(captioner: Captioner) -> Any:
    """The captioner's own preprocessing, where it does no harm that the captioner repeats it."""
    preprocess = getattr(captioner, "preprocess", None)
    size, crop = getattr(preprocess, "size", None), getattr(preprocess, "crop", None)
    whole = isinstance(size, tuple) and crop in (None, size)
    shortest = isinstance(size, int) and crop == (size, size)
    return preprocess if callable(preprocess) and (whole or shortest) else lambda image: image


def _seed_of(image: Any, seed: int) -> int:
    pixels = hashlib.blake2b(image.tobytes(), digest_size=8, key=str(seed).encode()[:64])
    return int.from_bytes(pixels.digest(), "big") >> 33  # 31 bits, which every framework takes
