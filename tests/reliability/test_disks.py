"""Disks that are full, read-only or gone: a clear error, nothing lost, and the run goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import killable_run
import pytest
from killing import left_by

from captionkit import checkpoints, tracking
from captionkit.errors import OutputError


@pytest.fixture(scope="module")
def undisturbed(backend, tmp_path_factory):
    work = tmp_path_factory.mktemp("undisturbed")
    killable_run.train(backend, work)
    return left_by(work / "run")


@pytest.fixture
def at_step(monkeypatch):
    """Do something when a step has been done, and the checkpoint of the one before is whole."""

    def register(step, do):
        once = iter([do])
        original = tracking.Tracking.__call__

        def call(tracker, event):
            original(tracker, event)
            if (event.kind, event.step) == ("step", step):
                before = tracker.sinks[0].path.parents[1] / f"checkpoint-{step - 1}"
                while checkpoints.damage(before):  # Flax writes it in the background
                    time.sleep(0.01)
                next(once, bool)()

        monkeypatch.setattr(tracking.Tracking, "__call__", call)

    return register


def fill(disk, leave):
    """Fill a disk, but for so many bytes."""
    state = os.statvfs(disk)
    with open(disk / "ballast", "ab") as file:
        file.write(bytes(max(0, state.f_bavail * state.f_frsize - leave)))


# a checkpoint of this model is some 700 KiB; a page is 4
@pytest.mark.parametrize("leave", [300 * 1024, 20 * 1024, 0], ids=["half", "little", "nothing"])
def test_a_full_disk(backend, undisturbed, small_disk, at_step, leave):
    at_step(7, lambda: fill(small_disk, leave))
    with pytest.raises(OutputError, match=r"could not be written to|Cannot write to") as error:
        killable_run.train(backend, small_disk)
    assert "resume goes on from" in str(error.value)
    run = small_disk / "run"
    whole = checkpoints.newest_whole(run)  # a warning of a half would be an error
    assert whole.name == "checkpoint-6"
    assert not list((run / "captionkit").glob(".*.tmp"))
    assert not list((run / "captionkit").glob(".*.partial"))
    with pytest.raises(OutputError, match=r"(?i)No space left on|bytes are free there"):
        killable_run.train(backend, small_disk)  # still full
    assert checkpoints.damage(whole) is None
    (small_disk / "ballast").unlink()
    killable_run.train(backend, small_disk)
    assert left_by(run) == undisturbed


def test_a_folder_that_becomes_read_only(backend, undisturbed, small_disk, at_step):
    run = small_disk / "run"

    def make_read_only():
        subprocess.run(["mount", "--bind", str(run), str(run)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(run)], check=True)

    at_step(7, make_read_only)
    try:
        with pytest.raises(OutputError, match="Read-only file system"):
            killable_run.train(backend, small_disk)
        with pytest.raises(OutputError, match=r"Cannot write to output_dir .*Read-only"):
            killable_run.train(backend, small_disk)
    finally:
        subprocess.run(["umount", "-l", str(run)], check=True)
    killable_run.train(backend, small_disk)
    assert left_by(run) == undisturbed


def test_a_folder_that_vanishes(backend, tmp_path, at_step):
    run = tmp_path / "run"

    def vanish():
        while run.exists():  # a checkpoint may be pruned at the same time
            shutil.rmtree(run, ignore_errors=True)

    at_step(7, vanish)
    with pytest.raises(OutputError, match=r"the folder of the run is gone|No such file"):
        killable_run.train(backend, tmp_path)
    assert not run.exists()
