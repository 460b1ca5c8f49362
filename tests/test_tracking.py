"""Where the events of a run go."""

from __future__ import annotations

import json

import pytest

from captionkit.run_folder import RunFolder
from captionkit.tracking import Tracking, read_history
from captionkit.types import TrainEvent


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.folder.mkdir(parents=True)
    return folder


def play(tracking, first, last):
    def send(kind, step, **values):
        tracking(TrainEvent(kind, step, 6, step / 3, values))

    send("start", first - 1, device="cpu", parameters=10)
    for step in range(first, last + 1):
        send("step", step, images=4)
        if step % 2 == 0:
            send("log", step, loss=1.0 / step, learning_rate=0.1)
        if step % 3 == 0:
            send("evaluate", step, loss=2.0 / step, wer=0.5)
        if step == 4:
            send("skip", step, image_id="b.jpg", reason="truncated")
            send("skip", step, image_id="b.jpg", reason="truncated")
    send("end", last)
    tracking.close()


def without_speed(rows):
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def test_history_has_a_row_a_step_with_what_was_logged_then(run):
    play(Tracking(run), 1, 6)
    assert without_speed(read_history(run.history)) == [
        {"step": 2, "epoch": 0.6667, "loss": 0.5, "learning_rate": 0.1},
        {"step": 3, "epoch": 1.0, "eval_loss": 2 / 3, "eval_wer": 0.5},
        {"step": 4, "epoch": 1.3333, "loss": 0.25, "learning_rate": 0.1},
        {
            "step": 6, "epoch": 2.0, "loss": 1 / 6, "learning_rate": 0.1,
            "eval_loss": 1 / 3, "eval_wer": 0.5,
        },
    ]  # fmt: skip


def test_a_resumed_run_continues_the_history(run):
    play(Tracking(run), 1, 6)
    whole = without_speed(read_history(run.history))
    with open(run.history, "a") as file:
        file.write('{"step": 7, "loss": 0.1')  # the process died while it wrote
    tracking = Tracking(run, resume_step=3)
    assert [row["step"] for row in tracking.history] == [2, 3]
    play(tracking, 4, 6)
    assert without_speed(read_history(run.history)) == whole


def test_skipped_images_are_listed_once_and_kept_over_a_resumption(run):
    play(Tracking(run), 1, 6)
    tracking = Tracking(run, resume_step=3)
    play(tracking, 4, 6)
    rows = [json.loads(line) for line in run.skipped.read_text().splitlines()]
    assert rows == [{"split": "train", "image_id": "b.jpg", "reason": "truncated"}]
    assert tracking.skipped == {"b.jpg": "truncated"}


def test_an_image_of_each_split_may_have_the_same_id(run):
    tracking = Tracking(run)
    play(tracking, 1, 6)
    for _ in range(2):
        tracking.on_skip("b.jpg", "empty")
    rows = [json.loads(line) for line in run.skipped.read_text().splitlines()]
    assert [(row["split"], row["reason"]) for row in rows] == [
        ("train", "truncated"), ("validation", "empty"),
    ]  # fmt: skip
    wanted = {"b.jpg": "truncated", "validation: b.jpg": "empty"}
    assert tracking.skipped == wanted
    with Tracking(run, resume_step=6) as again:
        assert again.skipped == wanted


def test_lines_that_were_cut_off_are_not_added_to(run):
    play(Tracking(run), 1, 6)
    with open(run.skipped, "a") as file:
        file.write('{"split": "train", "ima')  # the process was killed while it wrote
    with Tracking(run, resume_step=6) as tracking:
        tracking(TrainEvent("skip", 7, 9, 3.0, {"image_id": "c.jpg", "reason": "empty"}))
    rows = [json.loads(line) for line in run.skipped.read_text().splitlines()]
    assert [row["image_id"] for row in rows] == ["b.jpg", "c.jpg"]


def test_the_history_is_replaced_whole(run, monkeypatch):
    """A kill while a row gets its evaluation must not take the rows before it."""
    tracking = Tracking(run)
    play(tracking, 1, 4)
    before = run.history.read_text()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("captionkit.checkpoints.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        tracking.sinks[0](TrainEvent("evaluate", 4, 6, 2.0, {"loss": 1.0}))
    assert run.history.read_text() == before


def test_tensorboard_reads_the_events(run):
    play(Tracking(run), 1, 6)
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss", "train/learning_rate", "train/images_per_second", "eval/loss", "eval/wer",
    }  # fmt: skip
    assert [(e.step, round(e.value, 4)) for e in events.Scalars("train/loss")] == [
        (2, 0.5), (4, 0.25), (6, 0.1667),
    ]  # fmt: skip


def test_speed_counts_training_time_only(run, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("captionkit.tracking.time.perf_counter", lambda: now[0])
    tracking = Tracking(run)
    tracking(TrainEvent("start", 0, 4, 0, {}))
    for step in (1, 2):
        now[0] += 2.0
        tracking(TrainEvent("step", step, 4, 0, {"images": 8}))
    now[0] += 100.0  # an evaluation
    tracking(TrainEvent("evaluate", 2, 4, 0, {"loss": 1.0}))
    now[0] += 4.0
    tracking(TrainEvent("step", 3, 4, 0, {"images": 8}))
    tracking(TrainEvent("log", 3, 4, 0, {"loss": 1.0}))
    tracking.close()
    assert read_history(run.history)[-1]["images_per_second"] == pytest.approx(24 / 8)


def test_the_summary_has_the_facts_of_the_start(run):
    tracking = Tracking(run)
    play(tracking, 1, 6)
    summary = tracking.summary()
    assert summary["device"] == "cpu"
    assert summary["parameters"] == 10
    assert summary["seconds"] >= 0
