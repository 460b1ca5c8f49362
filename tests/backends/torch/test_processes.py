"""Two processes under torchrun train as one does, and one of them writes the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from captionkit.tracking import read_history


def test_two_processes_give_the_losses_of_one(git_folder, pairs, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for i, (image, texts) in enumerate(pairs):
        image.save(data / f"{i:02}.png")
        (data / f"{i:02}.txt").write_text(texts[0])
    for name in "abcdef":  # a is held out, and the second process alone meets d
        (data / f"{name}.png").write_bytes(b"no image")
        (data / f"{name}.txt").write_text("never seen")
    command = [
        "-m", "captionkit", "finetune", "--model", str(git_folder), "--data-dir", str(data),
        "--device", "cpu", "--batch-size", "4", "--epochs", "3", "--learning-rate", "1e-3",
        "--logging-steps", "1", "--metrics", "wer", "--on-bad-image", "skip", "--output-dir",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *command, str(tmp_path / "one")], check=True, env=env, capture_output=True
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, *command, str(tmp_path / "two")],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = (read_history(tmp_path / n / "captionkit/history.jsonl") for n in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for a, b in zip(one, two):
        for key in set(a) - {"images_per_second"}:
            tolerance = 1e-4 if key == "grad_norm" else 1e-5
            assert a[key] == pytest.approx(b[key], rel=tolerance), key
    assert json.loads((tmp_path / "two/captionkit/run.json").read_text())["processes"] == 2
    for name in ("one", "two"):
        listed = read_history(tmp_path / name / "captionkit/skipped.jsonl")
        assert sorted(row["image_id"] for row in listed) == [f"{c}.png" for c in "abcdef"]
