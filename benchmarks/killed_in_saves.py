"""Runs killed inside a save, and gone on with: captionkit beside the Hugging Face Trainer alone.

    python benchmarks/killed_in_saves.py [KILLS] [trainer|torch|flax ...]

Each kill is a SIGKILL at a random moment of a random save of a fresh run of 24 steps, which saves
after every second; then the run is resumed once, from its latest checkpoint, and what it ends with
is compared with an undisturbed run bit for bit. The same tiny GIT, on one CPU thread.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "reliability"))

from killing import RUN, Process, Timing, left_by, wait_and_kill  # noqa: E402 (the harness)
from results import keep  # noqa: E402

OUTCOMES = ("equal", "other weights", "failed")


def main() -> None:
    kills, *names = sys.argv[1:] or ["20"]
    counts = {name: trial(name, int(kills)) for name in names or ("trainer", "torch", "flax")}
    for name, (outcomes, seconds) in counts.items():
        listed = ", ".join(f"{outcomes.count(one)} {one}" for one in OUTCOMES)
        print(f"{name:<8} {len(outcomes)} kills in saves of {seconds * 1000:.0f} ms: {listed}")
        keep(
            f"killed_in_saves_{name}",
            {"kills": len(outcomes), "save_seconds": seconds}
            | {one: outcomes.count(one) for one in OUTCOMES},
        )


def trial(name: str, kills: int) -> tuple[list[str], float]:
    """What became of each killed run, and how long a save takes undisturbed."""
    program = HERE.parent / "tests/reliability/plain_trainer.py" if name == "trainer" else RUN
    backend = "-" if name == "trainer" else name
    rng, outcomes = random.Random(kills), []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        process = Process(program, backend, whole)
        if process.end():
            raise SystemExit((whole / "stderr.txt").read_text())
        timing, wanted = Timing.of(process), result_of(name, whole)
        while len(outcomes) < kills:
            work = Path(folder) / f"{len(outcomes)}-{rng.random()}"
            work.mkdir()
            if not wait_and_kill(Process(program, backend, work), "save", timing, rng):
                continue  # it had ended before
            if Process(program, backend, work).end():
                outcomes.append("failed")
                last = (work / "stderr.txt").read_text().strip().splitlines()[-1:]
            else:
                equal = result_of(name, work) == wanted
                outcomes.append("equal" if equal else "other weights")
                last = []
            print(name, len(outcomes), outcomes[-1], *last, flush=True)
    return outcomes, timing.save


def result_of(name: str, work: Path) -> object:
    if name == "trainer":
        run = work / "run"
        return (run / "final.safetensors").read_bytes(), (run / "final.json").read_text()
    return left_by(work / "run")


if __name__ == "__main__":
    main()
