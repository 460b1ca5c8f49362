"""Two processes of one run, of either backend, on this machine's CPU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from captionkit.evaluation import read_predictions
from captionkit.tracking import read_history

# evaluates and captions files, and tells how many images this process captioned
CAPTIONS = """
    import json, os, sys
    import captionkit
    from captionkit.processes import launched

    settings = json.loads(sys.argv[1])
    if settings["backend"] == "torch":
        import torch
        torch.set_num_threads(1)
    captioner = captionkit.load(settings["model"], backend=settings["backend"], device="cpu")
    counts, first = [], type(captioner).caption

    def counting(self, images, **more):
        counts.append(len(images))
        if settings.get("victim") == launched()[0] and len(counts) == 3:
            os.kill(os.getpid(), 9)
        return first(self, images, **more)

    def counted():
        told = sum(counts)
        counts.clear()
        return told

    type(captioner).caption = counting
    told = {}
    if settings["pairs"]:
        result = captionkit.evaluate(
            captioner, [tuple(pair) for pair in settings["pairs"]], metrics=["wer", "cider"],
            batch_size=2, on_bad_image="skip", max_new_tokens=8,
        )
        told = {
            "metrics": result.metrics,
            "predictions": [[p.image_id, p.prediction] for p in result.predictions],
            "skipped": [image_id for image_id, _ in result.skipped],
            "evaluated": counted(),
        }
    for name, images, more in settings["files"]:
        result = captionkit.caption_files(
            images, captioner, output=os.path.join(settings["output"], name), batch_size=2,
            max_new_tokens=8, **more,
        )
        told[name] = [result.captioned, result.done, result.failed, str(result.output), counted()]
    print("TOLD", json.dumps(told))
"""

# captionkit's command, in which the process `victim` gets a signal when it has read 12 images
COMMAND = """
    import os, sys
    from captionkit.cli import main
    from captionkit.data import loader
    from captionkit.processes import launched

    victim, number, left = int(sys.argv[1]), int(sys.argv[2]), [12]
    first = loader.read_row

    def reading(*arguments):
        left[0] -= 1
        if launched()[0] == victim and left[0] == 0:
            os.kill(os.getpid(), number)
        return first(*arguments)

    loader.read_row = reading
    sys.exit(main(sys.argv[3:]))
"""


def write_photos(pairs, folder, broken=()):
    """Pictures with captions in .txt files beside them, and some that are no pictures."""
    folder.mkdir(exist_ok=True)
    for i, (image, texts) in enumerate(pairs):
        image.save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(texts[0])
    for name in broken:
        (folder / f"{name}.png").write_bytes(b"no image")
        (folder / f"{name}.txt").write_text("never seen")
    return folder


def same_rows(ours, theirs):
    """The rows of two histories, but for the speed: grad_norm to 1e-4, all else to 1e-5."""
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert ours
    for a, b in zip(ours, theirs):
        for key in set(b) - {"images_per_second"}:
            tolerance = 1e-4 if key == "grad_norm" else 1e-5
            assert a[key] == pytest.approx(b[key], rel=tolerance), (a["step"], key)


def history(run):
    return read_history(run / "captionkit/history.jsonl")


def predictions(run):
    """(image id, caption) of each image that a run evaluated last."""
    rows = [(row.image_id, row.prediction) for row in read_predictions(run / "captionkit")]
    assert rows
    return rows


def skipped(run):
    """The ids of the images that a run could not read."""
    lines = (run / "captionkit/skipped.jsonl").read_text().splitlines()
    return sorted(json.loads(line)["image_id"] for line in lines)


def environment(backend, index=None, port=0):
    """Of one process alone, or of number `index` of two."""
    known = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if backend == "flax":
        known["JAX_PLATFORMS"] = "cpu"
    if index is None:
        return known
    if backend == "flax":
        return known | {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
        }  # fmt: skip
    return known | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "RANK": str(index), "LOCAL_RANK": str(index), "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip


def run(backend, arguments, count=2):
    """(status, output, errors) of each of so many processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    running = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(backend, None if count == 1 else index, port),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(count)
    ]  # fmt: skip
    told = [process.communicate(timeout=900) for process in running]
    return [(process.returncode, *texts) for process, texts in zip(running, told)]


def script(text, *arguments):
    """The arguments of Python for one of the scripts above."""
    return ["-c", textwrap.dedent(text), *map(str, arguments)]


def told(backend, settings, count):
    """What each process of CAPTIONS told."""
    results = run(backend, script(CAPTIONS, json.dumps(settings)), count)
    for status, _, errors in results:
        assert status == 0, errors[-4000:]
    lines = [next(x for x in out.splitlines() if x.startswith("TOLD")) for _, out, _ in results]
    return [json.loads(line.removeprefix("TOLD")) for line in lines]


def captions_of_two_are_those_of_one(backend, model, photos, home):
    """Evaluation and captioning of files: equal, shared out, nothing twice, one output."""
    pictures = sorted(map(str, photos.glob("*.png")))
    good = [path for path in pictures if not os.path.basename(path).startswith("bad")]
    pairs = [[path, Path(path).with_suffix(".txt").read_text()] for path in pictures]
    some = sorted(map(str, photos.glob("0*.png")))

    def settings(name):
        return {
            "backend": backend, "model": str(model), "pairs": pairs, "output": str(home / name),
            "files": [
                ["all.jsonl", str(photos), {}],
                ["drawn.jsonl", str(photos), {"do_sample": True, "top_k": 0}],
                ["texts", str(photos), {"format": "txt"}],
                ["some.jsonl", some, {}],
            ],
        }  # fmt: skip

    for name in ("one", "two"):
        (home / name).mkdir()
    one = told(backend, settings("one"), 1)[0]
    two = told(backend, settings("two"), 2)
    for process in two:
        for key, value in one["metrics"].items():
            assert abs(process["metrics"][key] - value) <= 1e-5 * abs(value), key
        assert process["predictions"] == one["predictions"]
        assert process["skipped"] == one["skipped"]
    assert len(one["skipped"]) == len(pictures) - len(good)
    assert sum(process["evaluated"] for process in two) == one["evaluated"] == len(good)
    assert all(process["evaluated"] > 0 for process in two)
    for name in ("all.jsonl", "drawn.jsonl", "texts", "some.jsonl"):
        assert two[0][name][:4] == two[1][name][:4]  # the others are told the result
        assert two[0][name][:3] == one[name][:3]
        assert two[0][name][4] + two[1][name][4] == one[name][4] == one[name][0]
        assert two[1][name][4] > 0
        ours, theirs = home / "two" / name, home / "one" / name
        if name == "texts":
            names = {path.name for path in theirs.glob("*.txt")}
            assert names == {path.name for path in ours.glob("*.txt")}
            assert len(names) == len(good)
            for text in names:
                assert (ours / text).read_text() == (theirs / text).read_text()
        else:
            assert rows(ours) == rows(theirs)
    # one that the model found no word for is captioned again
    lines = (home / "two" / "some.jsonl").read_text().splitlines()
    done = sum(bool(json.loads(line)["caption"]) for line in lines)
    assert 0 < done <= len(lines) == len(some)
    return home / "two" / "some.jsonl", done, len(good)


def rows(path):
    """(image, caption) of each line: images lie relative to the file, scores differ in a bit."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(os.path.basename(row["image"]), row["caption"]) for row in lines]


def a_killed_process_takes_the_other_along(backend, arguments, victim):
    """`arguments`: those of the command."""
    results = run(backend, script(COMMAND, victim, int(signal.SIGKILL), *arguments))
    the_other_ended_too(results, victim)


def the_other_ended_too(results, victim):
    assert results[victim][0] == -signal.SIGKILL
    status, _, errors = results[1 - victim]
    assert status not in (0, None)
    assert f"process {victim} of this run has ended before its time" in errors
    assert "Traceback" not in errors


def a_killed_caption_run_goes_on(backend, model, photos, home, victim):
    """Two processes killed among their batches and begun again: the captions of an unharmed run."""
    names = ("harmed", "unharmed")
    settings = {
        name: {
            "backend": backend, "model": str(model), "pairs": [], "output": str(home / name),
            "files": [["all.jsonl", str(photos), {}]],
        }
        for name in names
    }  # fmt: skip
    for name in names:
        (home / name).mkdir()
    killed = script(CAPTIONS, json.dumps({**settings["harmed"], "victim": victim}))
    the_other_ended_too(run(backend, killed), victim)
    [unharmed] = told(backend, settings["unharmed"], 1)
    first, second = told(backend, settings["harmed"], 2)
    captioned, done, *_ = first["all.jsonl"]
    assert first["all.jsonl"][:4] == second["all.jsonl"][:4]
    assert done > 0  # what had been written before the kill was not done again
    assert captioned + done == unharmed["all.jsonl"][0]
    assert rows(home / "harmed/all.jsonl") == rows(home / "unharmed/all.jsonl")


def an_interrupted_run_goes_on(backend, arguments, output, whole, counts, victim=0):
    """A signal to one process, in the first epoch; continued by another number of processes.

    arguments: of the command, without `--output-dir`. whole: a run of these that nobody
    interrupted. counts: of processes, before and after.
    """
    arguments = [*arguments, "--output-dir", str(output)]
    interrupted = script(COMMAND, victim, int(signal.SIGINT), *arguments)
    for status, _, errors in run(backend, interrupted, counts[0]):
        assert status == 130, errors[-4000:]
        assert "Traceback" not in errors
    assert max(row["step"] for row in history(output)) < history(whole)[-1]["step"]
    for status, _, errors in run(backend, ["-m", "captionkit", *arguments, "--resume"], counts[1]):
        assert status == 0, errors[-4000:]
    same_rows(history(output), history(whole))
    assert predictions(output) == predictions(whole)
