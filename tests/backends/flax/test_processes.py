"""Two processes under jax.distributed train, evaluate and caption as one does."""

from __future__ import annotations

import json

import pytest
from two_processes import (
    a_killed_caption_run_goes_on,
    a_killed_process_takes_the_other_along,
    an_interrupted_run_goes_on,
    captions_of_two_are_those_of_one,
    history,
    predictions,
    run,
    same_rows,
    skipped,
    write_photos,
)

import captionkit


@pytest.fixture(scope="module")
def photos(pairs, tmp_path_factory):
    return write_photos(pairs, tmp_path_factory.mktemp("data"), ("bad1", "bad2", "bad3"))


@pytest.fixture(scope="module")
def one(ved_folder, photos, tmp_path_factory):
    """What one process trains."""
    output = tmp_path_factory.mktemp("one") / "run"
    [(status, _, errors)] = run("flax", finetune(ved_folder, photos, output), 1)
    assert status == 0, errors[-4000:]
    return output


def settings(model, photos):
    return [
        "finetune", "--backend", "flax", "--model", str(model),
        "--data-dir", str(photos), "--batch-size", "4", "--epochs", "3", "--learning-rate", "1e-3",
        "--logging-steps", "1", "--metrics", "wer", "--on-bad-image", "skip",
        "--max-new-tokens", "8", "--test-size", "0.25",
    ]  # fmt: skip


def finetune(model, photos, output, *more):
    command = ["-m", "captionkit", *settings(model, photos)]
    return [*command, "--output-dir", str(output), *more]


@pytest.mark.parametrize(
    "how",
    [
        pytest.param([], id="pmap"),
        pytest.param(["--parallel", "mesh", "--fsdp", "2"], id="fsdp", marks=pytest.mark.long),
    ],
)
def test_two_processes_give_the_losses_of_one(ved_folder, photos, one, tmp_path, how):
    output = tmp_path / "two"
    results = run("flax", finetune(ved_folder, photos, output, *how))
    for status, _, errors in results:
        assert status == 0, errors[-4000:]
    assert "model " in results[0][1]
    assert not results[1][1]  # the other says nothing
    same_rows(history(output), history(one))
    assert json.loads((output / "captionkit/run.json").read_text())["processes"] == 2
    for folder in (one, output):
        assert skipped(folder) == ["bad1.png", "bad2.png", "bad3.png"]
    assert predictions(output) == predictions(one)


def test_captions_are_those_of_one_process(ved_folder, photos, tmp_path):
    some, done, good = captions_of_two_are_those_of_one("flax", ved_folder, photos, tmp_path)
    # one process goes on with what two began
    result = captionkit.caption_files(
        str(photos), ved_folder, backend="flax", output=str(some), batch_size=2, max_new_tokens=8
    )
    assert (result.done, result.captioned, result.failed) == (done, good - done, 3)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_killed_process_takes_the_other_along(ved_folder, photos, tmp_path, victim):
    output = ["--output-dir", str(tmp_path / "run"), "--epochs", "200"]
    arguments = [*settings(ved_folder, photos), *output]
    a_killed_process_takes_the_other_along("flax", arguments, victim)


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_captions_go_on_after_a_kill(ved_folder, photos, tmp_path, victim):
    a_killed_caption_run_goes_on("flax", ved_folder, photos, tmp_path, victim)


@pytest.mark.parametrize(
    ("counts", "victim"), [((2, 1), 1), pytest.param((1, 2), 0, marks=pytest.mark.long)]
)
def test_an_interrupted_run_goes_on_with_another_number_of_processes(
    ved_folder, photos, one, tmp_path, counts, victim
):
    arguments = settings(ved_folder, photos)
    an_interrupted_run_goes_on("flax", arguments, tmp_path / "run", one, counts, victim)
