"""Runs that are killed, each in a process forked off this one; what is left is printed as JSON.

    python crash_harness.py random PHOTOS WORK KIND KILLS SEED
    python crash_harness.py every PHOTOS WORK KIND EXISTING

`random` kills (SIGKILL) at random moments until so many kills are done. `every` ends the process,
as a crash would, before each write, sync and renaming in turn. After the kills the run is left
alone to its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from fake_captioner import FakeCaptioner

from captionkit.bulk import caption_files

OWN = (".failed.jsonl", ".captionkit")


def main():
    how, photos, work, kind, *rest = sys.argv[1:]
    photos, work = Path(photos), Path(work)
    if how == "random":
        left = kill_at_random(photos, work, kind, int(rest[0]), random.Random(int(rest[1])))
    else:
        left = crash_everywhere(photos, work, kind, rest[0])
    print(json.dumps(left))


def kill_at_random(photos, work, kind, kills, rng):
    started = time.perf_counter()
    fresh(photos, work)
    forked(lambda: run(work, kind, "skip", pause=0.002))
    whole = time.perf_counter() - started
    contents, done = [], 0
    while done < kills:
        fresh(photos, work)
        while done < kills:
            # a third of the whole: some runs are killed several times
            moment = rng.uniform(0, whole / 3)
            if forked(lambda: run(work, kind, "skip", pause=0.002), moment) == 0:
                break
            done += 1
        forked(lambda: run(work, kind, "skip", pause=0.0))
        contents.append(content(work))
    return contents


def crash_everywhere(photos, work, kind, existing):
    contents, point = [], 0
    while True:
        point += 1
        fresh(photos, work)
        crashed = forked(lambda: crashing(lambda: run(work, kind, existing), point)) != 0  # noqa: B023
        forked(lambda: run(work, kind, existing))
        contents.append(content(work))
        if not crashed:
            return contents


def crashing(do, point):
    """End the process before the `point`-th of the calls that change something on the disk."""
    count = 0

    def counted(call):
        def replaced(*arguments, **more):
            nonlocal count
            count += 1
            if count == point:
                os._exit(9)
            return call(*arguments, **more)

        return replaced

    os.fsync, os.replace, os.open = counted(os.fsync), counted(os.replace), counted(os.open)
    do()


def run(work, kind, existing, pause=0.0):
    settings = {"format": kind} if kind in ("txt", "metadata") else {"output": f"out.{kind}"}
    os.chdir(work)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        caption_files(
            "photos", FakeCaptioner(pause), batch_size=4, workers=2, existing=existing, **settings
        )


def forked(do, seconds=None):
    child = os.fork()
    if child == 0:
        try:
            do()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def fresh(photos, work):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(photos, work / "photos")
    for path in (work / "photos").glob("out.*"):
        path.rename(work / path.name)


def content(work):
    """What is in every file but the images and the run's own; the bytes as latin-1, or rows."""
    found = {}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.is_dir() or path.suffix == ".png" or any(own in name for own in OWN):
            continue
        read = rows_of_parquet if path.suffix == ".parquet" else text_of
        found[name] = read(path)
    return found


def text_of(path):
    return path.read_bytes().decode("latin-1")


def rows_of_parquet(path):
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


if __name__ == "__main__":
    main()
