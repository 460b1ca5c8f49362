"""Two processes under jax.distributed train, evaluate and caption as one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from captionkit.tracking import read_history

ENV = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0",
}


def start(arguments, index, address, **env):
    variables = {
        "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *arguments], env={**ENV, **variables, **env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def two(arguments, **env):
    """(status, output, errors) of each of two processes."""
    address = free_address()
    running = [start(arguments, index, address, **env) for index in range(2)]
    told = [process.communicate(timeout=600) for process in running]
    return [(process.returncode, *texts) for process, texts in zip(running, told)]


@pytest.fixture(scope="module")
def photos(pairs, tmp_path_factory):
    """Pictures with captions in .txt files beside them, and one that is no picture."""
    data = tmp_path_factory.mktemp("data")
    for i, (image, texts) in enumerate(pairs):
        image.save(data / f"{i:02}.png")
        (data / f"{i:02}.txt").write_text(texts[0])
    for name in "abc":
        (data / f"{name}.png").write_bytes(b"no image")
        (data / f"{name}.txt").write_text("never seen")
    return data


@pytest.fixture(scope="module")
def one(ved_folder, photos, tmp_path_factory):
    """What one process trains."""
    output = tmp_path_factory.mktemp("one") / "run"
    done = subprocess.run(
        [sys.executable, *finetune(ved_folder, photos, output)], env=ENV, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return output


def finetune(model, photos, output, *more):
    return [
        "-m", "captionkit", "finetune", "--backend", "flax", "--model", str(model),
        "--data-dir", str(photos), "--batch-size", "4", "--epochs", "3", "--learning-rate", "1e-3",
        "--logging-steps", "1", "--metrics", "wer", "--on-bad-image", "skip",
        "--max-new-tokens", "8", "--test-size", "0.25", "--output-dir", str(output), *more,
    ]  # fmt: skip


@pytest.mark.parametrize("how", [[], ["--parallel", "mesh", "--fsdp", "2"]], ids=["pmap", "fsdp"])
def test_two_processes_give_the_losses_of_one(ved_folder, photos, one, tmp_path, how):
    output = tmp_path / "two"
    results = two(finetune(ved_folder, photos, output, *how))
    for status, _, errors in results:
        assert status == 0, errors[-4000:]
    assert "model " in results[0][1]
    assert not results[1][1]  # the other says nothing
    ours, theirs = (read_history(run / "captionkit/history.jsonl") for run in (output, one))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for a, b in zip(ours, theirs):
        for key in set(b) - {"images_per_second"}:
            tolerance = 1e-4 if key == "grad_norm" else 1e-5
            assert a[key] == pytest.approx(b[key], rel=tolerance), key
    assert json.loads((output / "captionkit/run.json").read_text())["processes"] == 2
    for run in (one, output):
        listed = read_history(run / "captionkit/skipped.jsonl")
        assert sorted(row["image_id"] for row in listed) == ["a.png", "b.png", "c.png"]
    ours, theirs = (read_history(run / "captionkit/predictions.jsonl") for run in (output, one))
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    assert [row["prediction"] for row in ours] == [row["prediction"] for row in theirs]
