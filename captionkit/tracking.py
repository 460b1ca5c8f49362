"""Where the events of a run go: a progress bar, history.jsonl and TensorBoard.

A sink is a callable that takes a TrainEvent. Backends know none of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.checkpoints import write_atomically
from captionkit.printable import printable
from captionkit.processes import is_main_process
from captionkit.types import TrainEvent

if TYPE_CHECKING:
    from captionkit.run_folder import RunFolder

Sink = Callable[[TrainEvent], None]


class Tracking:
    """Hands each event to all sinks, adds the speed to log events, and knows what happened.

    run: where history.jsonl, skipped.jsonl and the TensorBoard events go.
    resume_step: the step of the checkpoint that the run goes on from.
    """

    def __init__(self, run: RunFolder, resume_step: int | None = None):
        self.run = run
        self.started = datetime.now(UTC)
        self.bar = ProgressBar()
        self.history = tuple(_rows_until(run.history, resume_step))
        self.skipped: dict[str, str] = {}
        self.sinks: list[Sink] = []
        if is_main_process():
            skips = SkippedImages(run.skipped, keep=resume_step is not None)
            self.skipped = skips.reasons
            board = TensorBoard(run.folder / "tensorboard", resume_step)
            self.sinks = [History(run.history, self.history), skips, board, self.bar]
        self.step = resume_step or 0
        self.finished = False
        self.facts: dict[str, Any] = {}
        self.images_since_log = 0
        self.images = 0
        self.seconds_since_log = 0.0
        self.training_seconds = 0.0
        self.clock = time.perf_counter()

    def __call__(self, event: TrainEvent) -> None:
        """Take in one event of the run."""
        self.step = event.step
        self.finished = event.kind == "end"
        now = time.perf_counter()
        if event.kind == "start":
            self.facts = dict(event.values)
            self.run.started()
        elif event.kind == "step":
            self.seconds_since_log += now - self.clock
            self.images_since_log += event.values["images"]
        elif event.kind == "log":
            speed = self.images_since_log / max(self.seconds_since_log, 1e-9)
            event = dataclasses.replace(event, values={**event.values, "images_per_second": speed})
            self.images += self.images_since_log
            self.training_seconds += self.seconds_since_log
            self.images_since_log, self.seconds_since_log = 0, 0.0
        for sink in self.sinks:
            sink(event)
        # what passes between a step and the next event, other than a step, is not training time
        if event.kind != "skip":
            self.clock = time.perf_counter()

    def on_skip(self, image_id: str, reason: str) -> None:
        """Take note of an image that an evaluation skipped."""
        values = {"image_id": image_id, "reason": reason, "split": "validation"}
        self(TrainEvent("skip", self.step, 0, 0.0, values))

    def on_evaluation_batch(self, done: int, total: int) -> None:
        """Show how far an evaluation is."""
        self.bar.evaluating(done, total)

    def summary(self) -> dict[str, Any]:
        """What run.json says of the run: the facts of its start, and its speed."""
        speed = self.images / self.training_seconds if self.training_seconds else None
        return {
            **self.facts,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self.started).total_seconds(), 1),
            "images_per_second": speed and round(speed, 2),
        }

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # where the disk is full closing fails too, and the first error is the one that counts
        with contextlib.suppress(*([] if kind is None else [OSError])):
            self.close()

    def close(self) -> None:
        """Close the bar and the event file."""
        for sink in reversed(self.sinks):
            if hasattr(sink, "close"):
                sink.close()


class History:
    """history.jsonl: one row a step at which something was logged, also kept in `rows`.

    Values of the same step share a row. `rows`: those of the part that a resumed run has behind it.
    """

    def __init__(self, path: Path, rows: Iterable[dict[str, Any]]):
        self.path = path
        self.rows = list(rows)
        self._write()

    def __call__(self, event: TrainEvent) -> None:
        """Take in one event."""
        if event.kind not in ("log", "evaluate"):
            return
        values = {
            name if event.kind == "log" else f"eval_{name}": value
            for name, value in event.values.items()
        }
        if self.rows and self.rows[-1]["step"] == event.step:
            self.rows[-1].update(values)
            self._write()
        else:
            self.rows.append({"step": event.step, "epoch": round(event.epoch, 4), **values})
            _append(self.path, json.dumps(self.rows[-1]))

    def _write(self) -> None:
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))


def _append(path: Path, line: str) -> None:
    """Add a line, durably: a checkpoint that comes after it does not repeat what it says."""
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _rows_until(path: Path, resume_step: int | None) -> list[dict[str, Any]]:
    # what was logged past the checkpoint that a run goes on from is logged again
    if resume_step is None or not path.exists():
        return []
    return [row for row in read_history(path) if row["step"] <= resume_step]


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a history.jsonl; a last line that was cut off is left out."""
    return _whole_rows(path, step=int)


def _whole_rows(path: Path, **kinds: type) -> list[dict[str, Any]]:
    """The rows up to the first that is damaged, or lacks a value of one of these kinds."""
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or not all(
            isinstance(row.get(n), k) for n, k in kinds.items()
        ):
            break
        rows.append(row)
    return rows


class TensorBoard:
    """Scalars as TensorBoard events, under train/ and eval/.

    They are written in the thread that they come from: the one of tensorboardX's SummaryWriter dies
    of a full disk, and the run then waits for it for ever.
    """

    def __init__(self, folder: Path, resume_step: int | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self.writer = EventsWriter(str(folder / "events"), f".{resume_step or 0}")
        if resume_step is not None:
            # drops what an interrupted run logged past its checkpoint
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=resume_step + 1, file_version="brain.Event:2"))
            self._write(Event(step=resume_step + 1, session_log=start))
        self.writer.flush()

    def __call__(self, event: TrainEvent) -> None:
        """Take in one event."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        group = {"log": "train", "evaluate": "eval"}.get(event.kind)
        if group:
            for name, value in event.values.items():
                if isinstance(value, (int, float)):
                    self._write(Event(step=event.step, summary=scalar(f"{group}/{name}", value)))
            self.writer.flush()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self.writer.write_event(event)

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()


class ProgressBar:
    """One bar: step, time left, loss, learning rate, images/s and the last evaluation."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.shown: dict[str, str] = {}
        self.skipped: set[tuple[str, str]] = set()

    def __call__(self, event: TrainEvent) -> None:
        """Take in one event."""
        from tqdm import tqdm

        if event.kind == "start":
            quiet = not sys.stderr.isatty()
            self.bar = tqdm(
                total=event.total_steps, initial=event.step, unit="step", desc="training",
                dynamic_ncols=True, mininterval=10 if quiet else 0.2, file=sys.stderr,
            )  # fmt: skip
            if event.values.get("parameters"):
                self.bar.write(_parameters(event.values), file=sys.stderr)
        if self.bar is None:
            return
        if event.kind == "step":
            self.bar.update(event.step - self.bar.n)
        elif event.kind == "log":
            names = {"loss": "loss", "learning_rate": "lr", "images_per_second": "img/s"}
            self.shown |= {
                short: f"{event.values[name]:.3g}"
                for name, short in names.items()
                if name in event.values
            }
            self.bar.set_postfix(self.shown, refresh=False)
        elif event.kind == "evaluate":
            values = "  ".join(f"{k} {v:.4g}" for k, v in event.values.items() if _is_number(v))
            self.bar.write(f"step {event.step}: {values}", file=sys.stderr)
        elif event.kind == "skip" and (key := _image_of(event)) not in self.skipped:
            self.skipped.add(key)
            self.bar.write(printable(f"skipped: {event.values['reason']}"), file=sys.stderr)

    def evaluating(self, done: int, total: int) -> None:
        """Show in the bar how far an evaluation is."""
        if self.bar is not None:
            self.bar.set_description("training" if done == total else f"evaluating {done}/{total}")

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _image_of(event: TrainEvent) -> tuple[str, str]:
    return event.values.get("split", "train"), event.values["image_id"]


class SkippedImages:
    """skipped.jsonl: each image that could not be read, once, with the reason.

    Both splits may have an image of the same id, which is then another one; of those the key in
    `reasons` is "validation: " and the id.
    """

    def __init__(self, path: Path, keep: bool = False):
        self.path = path
        self.reasons: dict[str, str] = {}
        self.seen: set[tuple[str, str]] = set()
        if keep and path.exists():
            rows = _whole_rows(path, image_id=str, reason=str)
            for row in rows:
                self._add(row)
            # anew, for its last line may have been cut off
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomically(path, text)
        else:
            path.unlink(missing_ok=True)

    def __call__(self, event: TrainEvent) -> None:
        """Take in one event."""
        if event.kind == "skip" and self._add(row := {"split": "train", **event.values}):
            _append(self.path, json.dumps(row, ensure_ascii=False))

    def _add(self, row: Mapping[str, Any]) -> bool:
        """Take note of an image; False where it is known."""
        split, image_id = str(row.get("split", "train")), row["image_id"]
        if (split, image_id) in self.seen:
            return False
        self.seen.add((split, image_id))
        key = f"{split}: {image_id}" if image_id in self.reasons else image_id
        self.reasons[key] = row["reason"]
        return True


def _parameters(facts: Mapping[str, Any]) -> str:
    count = facts["parameters"]
    text = f"{_count(count)} parameters"
    if facts.get("trainable", count) != count:
        share = facts["trainable"] / count
        text += f", {_count(facts['trainable'])} of them trained ({share:.1%})"
    return text + (", from scratch" if facts.get("from_scratch") else "")


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
