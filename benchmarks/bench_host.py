"""Decoding and preprocessing COCO photos, beside Pillow with the Hugging Face processor.

All contestants give the same float32 pixel values, checked before anything is timed. Then the same
from the cache of decoded images, two threads beside one, and what `fast_jpeg` costs in pixels.
`CAPTIONKIT_BENCH_PHOTOS` is a folder of .jpg files (default: coco-mini beside the project).
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from results import interleaved, keep, report
from transformers import ViTImageProcessorPil

from captionkit.data.decoded_cache import DecodedCache
from captionkit.data.loader import read_batches
from captionkit.data.preprocess import Preprocessor

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
FOLDER = Path(os.environ.get("CAPTIONKIT_BENCH_PHOTOS", SHARED / "coco-mini" / "val2017"))
REPEATS = 9


def main() -> None:
    photos = sorted(FOLDER.glob("*.jpg"))
    theirs = ViTImageProcessorPil()
    with tempfile.TemporaryDirectory() as scratch:
        theirs.save_pretrained(scratch)
        preprocess = Preprocessor.from_checkpoint(scratch)
        os.environ["CAPTIONKIT_CACHE"] = scratch
        cache = DecodedCache.open(preprocess, False, 1.0, len(photos))

        def peer(photo: Path) -> np.ndarray:
            image = Image.open(photo).convert("RGB")
            return theirs(image, return_tensors="np")["pixel_values"][0]

        def ours(photo: Path) -> np.ndarray:
            return preprocess.pixel_values(preprocess.read(photo))

        def cached(photo: Path) -> np.ndarray:
            return preprocess.pixel_values(cache.read(preprocess.read, photo))

        for photo in photos:
            expected = peer(photo)
            for contestant in (ours, cached, cached):
                np.testing.assert_array_equal(contestant(photo), expected)
        check_filled(cache, photos, preprocess)
        print(f"{len(photos)} photos; every pixel value equal to the peer's")
        one_core(photos, {"Pillow + HF": peer, "captionkit": ours}, "host", 1.6)
        one_core(photos, {"Pillow + HF": peer, "from the cache": cached}, "host_cache", 10)
        threads(photos, ours)
    scaled(photos, preprocess)


def check_filled(cache: DecodedCache, photos: list[Path], preprocess: Preprocessor) -> None:
    """Every photo comes from the cache from now on."""
    for photo in photos:
        cache.read(lambda source: exit(f"{source} is not in the cache"), photo)


def one_core(photos: list[Path], contestants: dict, name: str, target: float) -> None:
    def run(one) -> None:
        for photo in photos:
            one(photo)

    seconds = interleaved(
        {who: functools.partial(run, one) for who, one in contestants.items()}, REPEATS
    )
    report(name, f"{len(photos)} photos to 224 px float32, one core", seconds, target)


def threads(photos: list[Path], ours) -> None:
    batches = [photos[start : start + 16] for start in range(0, len(photos), 16)] * 2

    def run(workers: int) -> None:
        for _ in read_batches(ours, batches, workers):
            pass

    seconds = interleaved({"1 worker": lambda: run(1), "2 workers": lambda: run(2)}, REPEATS)
    report("host_workers", f"{2 * len(photos)} photos, read in batches", seconds, 1.8)


def scaled(photos: list[Path], preprocess: Preprocessor) -> None:
    """What decoding JPEGs smaller does to photos, and to photos of a camera's size."""
    large = [enlarged(photo, 6) for photo in photos[:8]]
    rows = {}
    for title, sources in (("as they are", photos), ("six times as large", large)):
        exact = [preprocess.read(source).astype(int) for source in sources]
        fast = [preprocess.read(source, fast_jpeg=True) for source in sources]
        changed = [np.abs(a - b) for a, b in zip(exact, fast, strict=True) if (a != b).any()]
        seconds = interleaved(
            {
                "whole": lambda sources=sources: [preprocess.read(s) for s in sources],
                "scaled": lambda sources=sources: [preprocess.read(s, True) for s in sources],
            },
            3,
        )
        rows[title] = {
            "photos": len(sources),
            "changed": len(changed),
            "mean difference of the changed": float(np.mean(changed)),
            "that of the worst photo": float(max(difference.mean() for difference in changed)),
            "largest of a value": int(max(difference.max() for difference in changed)),
            "milliseconds a photo": {
                who: min(values) / len(sources) * 1000 for who, values in seconds.items()
            },
        }
        print(f"fast_jpeg, photos {title}: {rows[title]}")
    keep("host_fast_jpeg", {"title": "fast_jpeg at 224 px, of 0..255", "photos": rows})


def enlarged(photo: Path, times: int) -> bytes:
    """A JPEG of a photo, with that many times its pixels in each direction."""
    with tempfile.TemporaryFile() as file, Image.open(photo) as image:
        size = (image.width * times, image.height * times)
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
        file.seek(0)
        return file.read()


if __name__ == "__main__":
    main()
