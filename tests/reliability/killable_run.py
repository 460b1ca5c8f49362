"""One training run in a process that may be killed at any moment; started by `killing.py`.

    python killable_run.py BACKEND WORK [CALL]

It resumes the run in WORK/run if there is one. On standard output it says where it is, a line each:
`start STEP`, `step STEP`, `save STEP` (a checkpoint is begun), `saved STEP` (its manifest is
written), `end`. With CALL, a number, it kills itself (SIGKILL) before the CALL-th of the calls that
change something on the disk, counted from the first checkpoint of the process on.
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import captionkit
from captionkit import checkpoints, tracking
from captionkit.testing import two_colour_pictures
from captionkit.testing.models import GIT

STEPS = 24
SETTINGS = {
    "max_steps": STEPS, "save_steps": 2, "eval_steps": 6, "logging_steps": 3, "batch_size": 4,
    "save_total_limit": 2, "test_size": 0.25, "learning_rate": 2e-3, "metrics": ["wer"],
    "max_new_tokens": 8, "precision": "fp32", "on_bad_image": "skip", "workers": 2,
}  # fmt: skip


def main():
    backend, work, *call = sys.argv[1:]
    say_where_it_is()
    if call:
        kill_before(int(call[0]))
    train(backend, Path(work))
    say("end")


def train(backend, work, **settings):
    """Begin the run in WORK/run, or go on with it."""
    if backend == "torch":
        import torch

        torch.set_num_threads(1)  # more threads sum in another order
        settings["device"] = "cpu"
    model = work / "tiny.json"
    if not model.exists():
        model.write_text(json.dumps(GIT))
    begun = (work / "run" / "captionkit" / "recipe.yaml").exists()
    return captionkit.finetune(
        model=str(model), dataset=pairs(), output_dir=str(work / "run"), backend=backend,
        resume=begun, **{**SETTINGS, **settings},
    )  # fmt: skip


def pairs():
    """Pictures, one of which cannot be read."""
    return [*two_colour_pictures(15), (b"no image", "nothing to see")]


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def say_where_it_is():
    begin, write_manifest = checkpoints.begin, checkpoints.write_manifest
    take_in = tracking.Tracking.__call__

    def begun(folder, *more):
        say("save", checkpoints.step_of(folder))
        begin(folder, *more)

    def written(folder):
        write_manifest(folder)
        say("saved", checkpoints.step_of(folder))

    def taken_in(tracker, event):
        take_in(tracker, event)
        if event.kind in ("start", "step"):
            say(event.kind, event.step)

    checkpoints.begin, checkpoints.write_manifest = begun, written
    tracking.Tracking.__call__ = taken_in


def kill_before(number):
    count, counting = 0, False
    begin = checkpoints.begin

    def begun(folder, *more):
        nonlocal counting
        counting = True
        begin(folder, *more)

    def counted(call, is_change=lambda *_, **__: True):
        def replaced(*arguments, **more):
            nonlocal count
            count += counting and is_change(*arguments, **more)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **more)

        return replaced

    def for_writing(path, mode="r", *_, **__):
        return any(letter in mode for letter in "wax+")

    checkpoints.begin = begun
    for name in ("fsync", "replace", "mkdir", "rename", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    shutil.rmtree = counted(shutil.rmtree)
    builtins.open = counted(builtins.open, for_writing)


if __name__ == "__main__":
    main()
