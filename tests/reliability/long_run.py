"""A long run of a tiny model, measured as it goes; prints one JSON object.

    python long_run.py BACKEND WORK STEPS CAPTIONS

It trains for STEPS updates, with 4 evaluations and 20 checkpoints, and then captions CAPTIONS
images into a file. Memory (`rss`, MiB), open file handles and threads are noted 100 times each.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import warnings
from pathlib import Path

import killable_run

import captionkit
from captionkit import tracking
from captionkit.bulk import progress
from captionkit.testing import two_colour_pictures


def main():
    backend, work, steps, captions = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    training, captioning = [], []
    take_in = tracking.Tracking.__call__

    def taken_in(tracker, event):
        take_in(tracker, event)
        if event.kind == "step" and event.step % (steps // 100) == 0:
            training.append({"step": event.step, **measured()})

    tracking.Tracking.__call__ = taken_in
    started = time.perf_counter()
    killable_run.train(
        backend, work, max_steps=steps, save_steps=steps // 20, eval_steps=steps // 4,
        logging_steps=10,
    )  # fmt: skip
    trained = time.perf_counter() - started

    photos = work / "photos"
    photos.mkdir()
    for number, (image, _) in enumerate(two_colour_pictures(50)):
        image.save(photos / f"{number:06}.png")
    for number in range(50, captions):
        os.link(photos / f"{number % 50:06}.png", photos / f"{number:06}.png")
    advance, done = progress.BulkProgress.advance, 0

    def advanced(bar, count):
        nonlocal done
        advance(bar, count)
        if (done + count) // (captions // 100) > done // (captions // 100):
            captioning.append({"captions": done + count, **measured()})
        done += count

    progress.BulkProgress.advance = advanced
    started = time.perf_counter()
    options = {"device": "cpu"} if backend == "torch" else {}
    result = captionkit.caption_files(
        photos, work / "run", output=str(work / "captions.jsonl"), max_new_tokens=8,
        batch_size=32, **options,
    )  # fmt: skip
    assert result.captioned == captions
    with open(work / "captions.jsonl") as file:
        assert sum(1 for _ in file) == captions
    seconds = {"training": trained, "captioning": time.perf_counter() - started}
    print(json.dumps({"training": training, "captioning": captioning, "seconds": seconds}))


def measured():
    gc.collect()  # garbage that waits for a collection is no leak
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "rss": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
