"""SIGINT and SIGTERM on the command line: a checkpoint, a message, and status 130."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import killing
import pytest

from captionkit import checkpoints
from captionkit.cli import main
from captionkit.testing import two_colour_pictures
from captionkit.testing.models import GIT

# says when the first step is done, as the parent cannot know
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
from captionkit import cli, tracking
take_in = tracking.Tracking.__call__
def taken_in(tracker, event):
    take_in(tracker, event)
    if (event.kind, event.step) == ("step", 2):
        print("step", flush=True)
tracking.Tracking.__call__ = taken_in
print("begun", flush=True)
sys.exit(cli.main(sys.argv[1:]))
"""


def begin(backend, work):
    photos = work / "photos"
    photos.mkdir()
    for number, (image, caption) in enumerate(two_colour_pictures(8)):
        image.save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(caption)
    (work / "tiny.json").write_text(json.dumps(GIT))
    arguments = [
        "finetune", "--model", str(work / "tiny.json"), "--data-dir", str(photos), "--backend",
        backend, "--output-dir", str(work / "run"), "--batch-size", "4", "--max-steps", "1000000",
        "--test-size", "0", "--learning-rate", "1e-4",
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], text=True, env=killing.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_signal_saves_and_ends_with_130(backend, tmp_path, number, capsys):
    with begin(backend, tmp_path) as process:
        assert process.stdout.readline() == "begun\n"
        assert process.stdout.readline() == "step\n", process.stderr.read()
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "stopping after this step and saving a checkpoint" in said
    assert "a checkpoint is saved. Go on with:" in said
    assert "Traceback" not in said
    saved = checkpoints.newest_whole(tmp_path / "run")
    step = checkpoints.step_of(saved)
    assert f"Stopped after step {step};" in said
    assert main(["finetune", "--resume", "--output-dir", str(tmp_path / "run"),
                 "--max-steps", str(step + 1)]) == 0  # fmt: skip
    history = (tmp_path / "run/captionkit/history.jsonl").read_text().splitlines()
    assert json.loads(history[-1])["step"] == step + 1
    capsys.readouterr()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_training_ends_it_with_130(tmp_path, number):
    """A command that waits for its input, without any framework."""
    fifo = tmp_path / "predictions.txt"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "score", str(fifo), str(fifo)], text=True,
        env=killing.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "begun\n"
        writer = os.open(fifo, os.O_WRONLY)  # returns when it has opened the file to read
        time.sleep(0.2)
        process.send_signal(number)
        said = process.stderr.read()
        os.close(writer)
    assert process.returncode == 130, said
    assert "captionkit: interrupted" in said
    assert "Traceback" not in said
