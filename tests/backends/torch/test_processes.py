"""Two processes under torchrun train as one does, and one of them writes the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from two_processes import (
    a_killed_caption_run_goes_on,
    a_killed_process_takes_the_other_along,
    an_interrupted_run_goes_on,
    captions_of_two_are_those_of_one,
    history,
    run,
    same_rows,
    skipped,
    write_photos,
)

import captionkit
from captionkit.backends.torch import TorchBackend
from captionkit.backends.torch.options import TorchOptions
from captionkit.errors import ConfigError
from captionkit.recipe import Recipe


def test_two_processes_give_the_losses_of_one(git_folder, pairs, tmp_path):
    # a is held out, and the second process alone meets d
    data = write_photos(pairs, tmp_path / "data", "abcdef")
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
        env=env, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    same_rows(history(tmp_path / "two"), history(tmp_path / "one"))
    assert json.loads((tmp_path / "two/captionkit/run.json").read_text())["processes"] == 2
    for name in ("one", "two"):
        assert skipped(tmp_path / name) == [f"{c}.png" for c in "abcdef"]


@pytest.fixture
def photos(pairs, tmp_path):
    return write_photos(pairs, tmp_path / "photos", ("bad1", "bad2", "bad3"))


def test_captions_are_those_of_one_process(git_folder, photos, tmp_path):
    some, done, good = captions_of_two_are_those_of_one("torch", git_folder, photos, tmp_path)
    # one process goes on with what two began
    result = captionkit.caption_files(
        str(photos), git_folder, backend="torch", device="cpu", output=str(some), batch_size=2,
        max_new_tokens=8,
    )  # fmt: skip
    assert (result.done, result.captioned, result.failed) == (done, good - done, 3)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_killed_process_takes_the_other_along(git_folder, photos, tmp_path, victim):
    arguments = [
        "finetune", "--model", str(git_folder), "--backend", "torch", "--data-dir", str(photos),
        "--device", "cpu", "--batch-size", "4", "--epochs", "200", "--on-bad-image", "skip",
        "--max-new-tokens", "8", "--output-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    a_killed_process_takes_the_other_along("torch", arguments, victim)


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_captions_go_on_after_a_kill(git_folder, photos, tmp_path, victim):
    a_killed_caption_run_goes_on("torch", git_folder, photos, tmp_path, victim)


@pytest.mark.parametrize(
    ("counts", "victim"), [((2, 1), 1), pytest.param((1, 2), 0, marks=pytest.mark.long)]
)
def test_an_interrupted_run_goes_on_with_another_number_of_processes(
    git_folder, photos, tmp_path, counts, victim
):
    arguments = [
        "finetune", "--model", str(git_folder), "--backend", "torch", "--data-dir", str(photos),
        "--device", "cpu", "--batch-size", "4", "--epochs", "3", "--learning-rate", "1e-3",
        "--logging-steps", "1", "--metrics", "wer", "--on-bad-image", "skip",
        "--max-new-tokens", "8", "--test-size", "0.25",
    ]  # fmt: skip
    whole = tmp_path / "whole"
    command = ["-m", "captionkit", *arguments, "--output-dir", str(whole)]
    [(status, _, errors)] = run("torch", command, 1)
    assert status == 0, errors[-4000:]
    an_interrupted_run_goes_on("torch", arguments, tmp_path / "run", whole, counts, victim)


def test_a_batch_that_does_not_divide_is_found_before_anything_is_written(monkeypatch):
    recipe = Recipe().replace(batch_size=8, accumulation_steps=2, precision="fp32")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    TorchBackend().check(recipe, TorchOptions(device="cpu"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"batch_size=8 does not divide by 3 processes x 2"):
        TorchBackend().check(recipe, TorchOptions(device="cpu"))
