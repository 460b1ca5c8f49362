"""Kills runs, lets them go on, and says what is left."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
RUN = HERE / "killable_run.py"
PATIENCE = 1800  # seconds without a word, on a busy machine
_QUIET = {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "agg", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip


def environment():
    """Of a program of the tests: no network, one thread, this checkout."""
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **_QUIET, "PYTHONPATH": path}


class Process:
    """A program that says on standard output where it is."""

    def __init__(self, program, *arguments):
        self.started = time.monotonic()
        with open(Path(arguments[1]) / "stderr.txt", "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(program), *map(str, arguments)], text=True, stderr=errors,
                env=environment(), stdout=subprocess.PIPE,
            )  # fmt: skip
        self.said = []  # (seconds since the start, words)
        self.lines = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.lines.put((time.monotonic() - self.started, line.split()))
        self.lines.put(None)

    def wait_for(self, word, times=1):
        """Listen until it has said a word so often; False where it ends before."""
        while times:
            line = self.lines.get(timeout=PATIENCE)
            if line is None:
                self.lines.put(None)
                return False
            self.said.append(line)
            times -= line[1][0] == word
        return True

    def kill(self):
        self.process.kill()
        return self.end()

    def end(self):
        """Listen to its end; the return code."""
        while self.wait_for(None):
            pass
        self.process.stdout.close()
        return self.process.wait(PATIENCE)

    def steps(self, word):
        return [int(words[1]) for _, words in self.said if words[0] == word]


@dataclass
class Left:
    """What a run left: all that must be equal, whatever happened on the way."""

    weights: bytes
    history: list
    metrics: dict
    predictions: str
    skipped: str


def left_by(run):
    own = run / "captionkit"
    rows = [json.loads(line) for line in (own / "history.jsonl").read_text().splitlines()]
    return Left(
        (run / "model.safetensors").read_bytes(),
        [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows],
        json.loads((own / "metrics.json").read_text()),
        (own / "predictions.jsonl").read_text(),
        (own / "skipped.jsonl").read_text(),
    )


@dataclass
class Timing:
    """Of an undisturbed run, in seconds: to its first step, from there on, and of a save."""

    start: float
    steps: float
    save: float

    @classmethod
    def of(cls, process):
        when = {}
        for seconds, (word, *_) in process.said:
            when.setdefault(word, []).append(seconds)
        saves = [b - a for a, b in zip(when["save"], when["saved"])]
        first = when["step"][0]
        return cls(first, process.said[-1][0] - first, sorted(saves)[len(saves) // 2])


@dataclass
class Killed:
    """The kills of a chain of processes, each of which goes on where the one before was killed.

    moments: (phase, the step that it was at) of each kill. lost: (saved, resumed): steps of
    checkpoints that were whole when a process was killed, and that the next did not go on from.
    """

    moments: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    finished: int = 0


def kill_again_and_again(backend, work, plan, timing, rng, check):
    """Kill as `plan` says ("start", "steps", "save" or "call", one a kill), then let it end.

    A run that ends before its kill is checked, and another is begun. check: called with the folder
    of each run that has ended.
    """
    done, number = Killed(), 0
    whole = None  # the newest step whose checkpoint was whole at the last kill
    folder = work / "0"
    folder.mkdir()
    plan = list(plan)
    while True:
        phase = plan[0] if plan else None
        process = Process(RUN, backend, folder, *([rng.randint(1, 60)] if phase == "call" else []))
        killed = wait_and_kill(process, phase, timing, rng)
        resumed = process.steps("start")
        if resumed and whole is not None and resumed[0] < whole:
            done.lost.append((whole, resumed[0]))
        whole = max(process.steps("saved"), default=whole)
        if killed:
            done.moments.append((phase, max(process.steps("step"), default=None)))
            plan.pop(0)
            continue
        check(folder / "run")
        done.finished += 1
        if not plan:
            return done
        number, whole = number + 1, None
        folder = work / str(number)
        folder.mkdir()


def wait_and_kill(process, phase, timing, rng):
    """Whether it was killed; otherwise it ended by itself, as it should."""
    if phase == "start":
        time.sleep(rng.uniform(0, timing.start))
        code = process.kill()
    elif phase == "steps" and process.wait_for("step"):
        time.sleep(rng.uniform(0, timing.steps))
        code = process.kill()
    elif phase == "save" and process.wait_for("save", rng.randint(1, 4)):
        time.sleep(rng.uniform(0, timing.save))
        code = process.kill()
    else:
        code = process.end()
    if code == -9:
        return True
    assert code == 0, (Path(process.process.args[3]) / "stderr.txt").read_text()[-3000:]
    return False
