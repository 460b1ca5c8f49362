"""Contestants that need environments of their own: a process each, one of them working at a time.

A request is a line of JSON on standard input, `[name, {arguments}]`; the answer is a line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Contestant:
    """A running worker: `ask` has it do something and waits for what it says."""

    def __init__(self, python: str, script: Path, env: Mapping[str, str] | None = None):
        self.process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, name: str, **arguments: Any) -> Any:
        """What the worker's function of that name returns."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended before it answered {name}")
        return json.loads(line)

    def close(self) -> None:
        """End the worker."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests until there are no more; whatever else is printed goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answers.write(json.dumps(functions[name](**arguments)) + "\n")
        answers.flush()


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes; it must wait for its own results."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_mib(reset: bool = False) -> float:
    """The most memory that this process has held (since the last reset), in MiB. Linux only."""
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return peak
