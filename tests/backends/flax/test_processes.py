"""Two processes under jax.distributed train, evaluate and caption as one does."""

from __future__ import annotations

import json

import pytest
from two_processes import (
    a_killed_process_takes_the_other_along,
    captions_of_two_are_those_of_one,
    run,
)

import captionkit
from captionkit.tracking import read_history


@pytest.fixture(scope="module")
def photos(pairs, tmp_path_factory):
    """Pictures with captions in .txt files beside them, and one that is no picture."""
    data = tmp_path_factory.mktemp("data")
    for i, (image, texts) in enumerate(pairs):
        image.save(data / f"{i:02}.png")
        (data / f"{i:02}.txt").write_text(texts[0])
    for name in ("bad1", "bad2", "bad3"):
        (data / f"{name}.png").write_bytes(b"no image")
        (data / f"{name}.txt").write_text("never seen")
    return data


@pytest.fixture(scope="module")
def one(ved_folder, photos, tmp_path_factory):
    """What one process trains."""
    output = tmp_path_factory.mktemp("one") / "run"
    [(status, _, errors)] = run("flax", ["-m", *finetune(ved_folder, photos, output)], 1)
    assert status == 0, errors[-4000:]
    return output


def finetune(model, photos, output, *more):
    return [
        "captionkit", "finetune", "--backend", "flax", "--model", str(model),
        "--data-dir", str(photos), "--batch-size", "4", "--epochs", "3", "--learning-rate", "1e-3",
        "--logging-steps", "1", "--metrics", "wer", "--on-bad-image", "skip",
        "--max-new-tokens", "8", "--test-size", "0.25", "--output-dir", str(output), *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "how",
    [
        pytest.param([], id="pmap"),
        pytest.param(["--parallel", "mesh", "--fsdp", "2"], id="fsdp", marks=pytest.mark.long),
    ],
)
def test_two_processes_give_the_losses_of_one(ved_folder, photos, one, tmp_path, how):
    output = tmp_path / "two"
    results = run("flax", ["-m", *finetune(ved_folder, photos, output, *how)])
    for status, _, errors in results:
        assert status == 0, errors[-4000:]
    assert "model " in results[0][1]
    assert not results[1][1]  # the other says nothing
    ours, theirs = (read_history(folder / "captionkit/history.jsonl") for folder in (output, one))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for a, b in zip(ours, theirs):
        for key in set(b) - {"images_per_second"}:
            tolerance = 1e-4 if key == "grad_norm" else 1e-5
            assert a[key] == pytest.approx(b[key], rel=tolerance), key
    assert json.loads((output / "captionkit/run.json").read_text())["processes"] == 2
    for folder in (one, output):
        lines = (folder / "captionkit/skipped.jsonl").read_text().splitlines()
        listed = [json.loads(line) for line in lines]
        assert sorted(row["image_id"] for row in listed) == ["bad1.png", "bad2.png", "bad3.png"]
    ours, theirs = (
        read_history(folder / "captionkit/predictions.jsonl") for folder in (output, one)
    )
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    assert [row["prediction"] for row in ours] == [row["prediction"] for row in theirs]


def test_captions_are_those_of_one_process(ved_folder, photos, tmp_path):
    some, done, good = captions_of_two_are_those_of_one("flax", ved_folder, photos, tmp_path)
    # one process goes on with what two began
    result = captionkit.caption_files(
        str(photos), ved_folder, backend="flax", output=str(some), batch_size=2, max_new_tokens=8
    )
    assert (result.done, result.captioned, result.failed) == (done, good - done, 3)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_killed_process_takes_the_other_along(ved_folder, photos, tmp_path, victim):
    arguments = finetune(ved_folder, photos, tmp_path / "run", "--epochs", "200")[1:]
    a_killed_process_takes_the_other_along("flax", arguments, victim)
