"""Files of results: captions to be scored, and what runs of captionkit left."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fuzz.harness import fuzz
from fuzz.mutations import Dice, any_file, documents, dumped, lines

from captionkit.bulk.config import BulkConfig
from captionkit.bulk.journal import Journal
from captionkit.bulk.lists import write_failed, write_review
from captionkit.bulk.place import Place
from captionkit.bulk.table_file import TableFile
from captionkit.bulk.text_files import TextFiles
from captionkit.evaluation import read_predictions as read_own_predictions
from captionkit.metrics.document_frequencies import DocumentFrequencies
from captionkit.report import compare_runs, write_report
from captionkit.report.run import read_run
from captionkit.run_folder import RunFolder
from captionkit.score_files import score_files
from captionkit.tracking import SkippedImages, read_history

RESULTS: list[Any] = [
    [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}],
    {"annotations": [{"image_id": 1, "caption": "a dog"}], "images": [{"id": 1, "file_name": "a"}]},
    {"1": "a dog", "2": ["a cat"]},
]
ROWS = [
    {"image_id": "1", "prediction": "a dog", "references": ["the dog", "a dog"]},
    {"image_id": "2", "prediction": "a cat", "references": ["the cat"], "score": -1.0},
]
TABLE = b'image_id,prediction,references\n1,a dog,"[""the dog"", ""x""]"\n2,a cat,the cat\n'
VALUES = ["a dog", ["a dog"], "1", "[[[[", "[" * 9000]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        (
            "p.json",
            any_file([dumped(one) for one in RESULTS], (), documents(RESULTS, None, VALUES)),
        ),
        ("p.jsonl", any_file([b"\n".join(map(dumped, ROWS))], (), lines(ROWS, VALUES))),
        ("p.csv", any_file([TABLE], [b"\n3,", b'"['])),
        ("p.txt", any_file([b"a dog\na cat\n"])),
    ],
)
def test_scores(tmp_path, name, make):
    file, references = tmp_path / name, tmp_path / "references.json"
    truth = {"1": ["the dog"], "2": ["the cat"]}
    own = name in ("p.jsonl", "p.csv")
    references.write_text(json.dumps(truth), encoding="utf-8")
    if name == "p.txt":
        references = tmp_path / "references.txt"
        references.write_text("the dog\nthe cat\n", encoding="utf-8")

    def read(content: bytes) -> None:
        file.write_bytes(content)
        scores = score_files(file, None if own else references, ("wer", "rouge_l", "cider"))
        assert scores.table()
        scores.write_csv(tmp_path / "scores.csv")
        scores.write_json(tmp_path / "scores.json")

    fuzz(name, make, read)


def test_document_frequencies(tmp_path):
    file = tmp_path / "df.npz"
    DocumentFrequencies.from_references([["a dog"], ["a cat", "two cats"]]).save(file)
    good = dict(np.load(file))
    seed = file.read_bytes()

    def another(dice: Dice) -> bytes:
        arrays = dict(good)
        name = dice.pick(sorted(arrays))
        value = dice.pick(
            [
                np.zeros(0),
                np.array(["x"]),
                np.array(2**40),
                np.zeros((2, 2), np.int64),
                np.array([-1]),
                np.array([np.nan]),
                np.array([1, 2**40, 0]),
            ]
        )
        arrays[name] = value
        np.savez_compressed(file, **arrays)
        return file.read_bytes()

    def read(content: bytes) -> None:
        file.write_bytes(content)
        DocumentFrequencies.load(file)

    fuzz(
        "document frequencies",
        any_file([seed], [b"{'descr': '<i8', 'shape': (9,)}"], another),
        read,
    )


# ---- what a run left ---------------------------------------------------------------------------

RUN = {
    "metrics.json": [{"wer": 0.5, "loss": 1, "rougeL": 20.0}],
    "history.jsonl": [
        {"step": 1, "epoch": 0.1, "loss": 2.0, "learning_rate": 1e-5},
        {"step": 2, "epoch": 0.2, "eval_loss": 2.0, "eval_wer": 0.5, "loss": 1.0},
    ],
    "predictions.jsonl": [
        {
            "image_id": "1",
            "prediction": "a dog",
            "score": -1.0,
            "before": "x",
            "references": ["the dog"],
            "metrics": {"wer": 0.5},
        }
    ],
    "run.json": [
        {
            "command": "finetune",
            "backend": "torch",
            "seconds": 3.5,
            "parameters": 10**7,
            "trainable": 5,
            "started": "2026-11-22T02:51:00+00:00",
            "train_images": 3,
            "versions": {"captionkit": "0.1"},
            "warnings": ["w"],
            "images_per_second": 2.5,
        }
    ],
    "recipe.yaml": [{"model": "x", "data": {"dataset": "critters"}, "training": {"epochs": 2}}],
    "skipped.jsonl": [{"image_id": "1", "reason": "r", "split": "train"}],
}


def left_by_run(dice: Dice) -> dict[str, bytes]:
    """The files of a run, of which some are damaged."""
    return {
        name: MAKERS[name](dice) if dice.roll(3) == 1 else b"\n".join(map(dumped, rows))
        for name, rows in RUN.items()
        if dice.roll(8) != 7
    }


MAKERS = {
    name: any_file(
        [b"\n".join(map(dumped, rows))],
        (),
        lines(rows) if name.endswith("jsonl") else documents(rows),
    )
    for name, rows in RUN.items()
}


def test_run_folder(tmp_path):
    """What `resume` and the end of a run read."""
    run = RunFolder(tmp_path)
    run.folder.mkdir()

    def read(files: dict[str, bytes]) -> None:
        _write(run.folder, files)
        read_run(run.folder)
        if run.history.exists():
            assert all(isinstance(row["step"], int) for row in read_history(run.history))
        if run.skipped.exists():
            SkippedImages(run.skipped, keep=True)
        run.metrics()
        if (run.folder / "predictions.jsonl").exists():
            read_own_predictions(run.folder)
        run.stored_recipe()

    fuzz("run folder", left_by_run, read)


def test_report(tmp_path):
    """A page is written of whatever is left of a run."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def read(files: dict[str, bytes]) -> None:
        _write(tmp_path / "b", files)
        page = write_report(tmp_path / "b", None, "x").read_text(encoding="utf-8")
        assert "<script>alert" not in page
        _write(tmp_path / "a", {"metrics.json": b"{}"})
        compare_runs([tmp_path / "a", tmp_path / "b"])

    some = {"metrics.json": b"{}"}  # where nothing at all is left, there is no page
    fuzz("report", lambda dice: some | left_by_run(dice), read, refuses=False)


def _write(folder: Any, files: dict[str, bytes]) -> None:
    for name in RUN:
        (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


# ---- what bulk captioning left -----------------------------------------------------------------

JOURNAL = [
    {"settings": {"model": "x", "seed": 0}},
    {"image": "a.png", "caption": "a dog", "score": -0.5, "before": "x", "file": "a.txt"},
    {"image": "b.png", "caption": "a cat", "score": None, "alternatives": []},
    {"image": "c.png", "failed": "it is damaged"},
    {"applied": True},
]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
def test_journal(tmp_path, kind):
    """A journal in a folder that came from elsewhere: nothing is written outside of it."""
    home, state = tmp_path / "home", tmp_path / "home" / "state"
    output = home / "out" if kind == "txt" else home / f"out.{kind}"
    config = BulkConfig(format=kind, output=str(output), existing="overwrite")
    place = Place(home, output, state, home / "failed.jsonl", home / "review.jsonl")
    state.mkdir(parents=True)
    file = state / "journal.jsonl"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        if kind != "txt":
            output.unlink(missing_ok=True)
        journal = Journal(file)
        try:
            target = (TextFiles if kind == "txt" else TableFile)(place, config)
            target.finish(journal)
            target.look()
            write_failed(journal, place)
            write_review(journal, place, -0.1)
        finally:
            journal.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]

    whole = b"\n".join(map(dumped, JOURNAL)) + b"\n"
    rows = lines(JOURNAL, ["../../x.txt", "/tmp/captionkit-fuzz/x.txt", "a.png", "a dog"])
    make = any_file([whole], (), lambda dice: rows(dice) + b"\n")
    fuzz(f"journal.{kind}", make, read, refuses=False)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_captions_that_are_there(tmp_path, kind):
    """A file of captions that a bulk run is to add to."""
    output = tmp_path / f"out.{kind}"
    config = BulkConfig(output=str(output), existing="append")
    place = Place(tmp_path, output, tmp_path, tmp_path / "failed", tmp_path / "review")
    journal_file = tmp_path / "journal.jsonl"
    rows = [{"image": "a.png", "caption": "x"}, {"image": "b.png", "caption": "y", "more": 1}]
    seed = b"image,caption\na.png,x\n" if kind == "csv" else b"\n".join(map(dumped, rows))

    def read(content: bytes) -> None:
        output.write_bytes(content)
        journal_file.write_bytes(b"\n".join(map(dumped, JOURNAL[:4])) + b"\n")
        journal = Journal(journal_file)
        try:
            target = TableFile(place, config)
            target.look()
            target.finish(journal)
        finally:
            journal.close()

    fuzz(f"captions.{kind}", any_file([seed], (), lines(rows) if kind == "jsonl" else None), read)
