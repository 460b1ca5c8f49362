"""Bulk captioning by the size of the collection: memory, and resuming a run that is finished.

The captioner says the same of every image, so that what is measured is all the rest. Each
measurement is a process of its own.

    python benchmarks/bench_bulk_size.py [memory] [resume]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from results import keep

import captionkit
from captionkit.bulk import caption_files
from captionkit.data.preprocess import Preprocessor

MEMORY, RESUMED = (1_000, 10_000), 100_000


def main() -> None:
    wanted = sys.argv[1:] or ["memory", "resume"]
    if "memory" in wanted:
        memory()
    if "resume" in wanted:
        resume()


def memory() -> None:
    """Peak resident memory; flat is the aim."""
    peaks = {}
    for kind in ("txt", "jsonl"):
        for count in MEMORY:
            with tempfile.TemporaryDirectory() as scratch:
                photos(Path(scratch) / "photos", count, (320, 240))
                peaks[f"{kind} {count}"] = measured(scratch, kind)["MB"]
                print(f"{kind:<6} {count:>6,} images: peak {peaks[f'{kind} {count}']:.1f} MB")
    keep("bulk_memory", {"title": "peak memory of bulk captioning", "MB": peaks})


def resume() -> None:
    """Seconds of a second run that finds everything done, with the start of Python; target 5."""
    seconds = {}
    for kind in ("txt", "jsonl"):
        with tempfile.TemporaryDirectory() as scratch:
            photos(Path(scratch) / "photos", RESUMED, (8, 8))
            first = measured(scratch, kind)["seconds"]
            again = [measured(scratch, kind) for _ in range(3)]
            assert all(run["done"] == RESUMED for run in again)
            seconds[kind] = [run["seconds"] for run in again]
            rate = RESUMED / first
            print(f"{kind:<6} {RESUMED:,} images written at {rate:,.0f}/s; resumed in", end=" ")
            print(f"{sorted(seconds[kind])[1]:.2f} s, {again[0]['MB']:.0f} MB   (target 5 s)")
    keep("bulk_resume", {"title": f"resuming a finished run of {RESUMED:,}", "seconds": seconds,
                         "target": 5})  # fmt: skip


def photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """So many files, a thousand a folder, all of which link to the first of their folder."""
    folder.mkdir()
    for number in range(count):
        place = folder / f"{number // 1000:04}"
        if number % 1000 == 0:
            place.mkdir()
            picture = place / f"{number:07}.jpg"
            Image.effect_noise(size, 50).convert("RGB").save(picture)
            continue
        os.link(picture, place / f"{number:07}.jpg")


def measured(scratch: str, kind: str) -> dict[str, float]:
    """One run in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "run", scratch, kind]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - started
    return {**json.loads(output.splitlines()[-1]), "seconds": seconds}


class Parrot:
    """Says the same of every image."""

    preprocess = Preprocessor.square(32)

    def caption(self, images: list, **settings: object) -> list[captionkit.Caption]:
        """A caption an image."""
        return [captionkit.Caption("a photo of noise in many shades of grey", -0.5)] * len(images)


def run(scratch: str, kind: str) -> None:
    """Print what a run did, and its peak resident memory."""
    settings = {"format": "txt"} if kind == "txt" else {"output": f"{scratch}/captions.jsonl"}
    result = caption_files(f"{scratch}/photos", Parrot(), batch_size=64, **settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"captioned": result.captioned, "done": result.done, "MB": peak}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run(*sys.argv[2:])
    else:
        main()
