"""Feeding many hostile inputs to one reader: what comes out, how long it takes, how much it holds.

CAPTIONKIT_FUZZ_EXAMPLES is the number of inputs of each target (default: a few dozen, always the
same); CAPTIONKIT_FUZZ_SEED draws others; CAPTIONKIT_FUZZ_LOG is a file that gets a JSON line a
target. `nox -s fuzz` sets all three.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz.mutations import Dice, Maker
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from captionkit.errors import CaptionkitError

EXAMPLES = int(os.environ.get("CAPTIONKIT_FUZZ_EXAMPLES", "40"))
SEED = os.environ.get("CAPTIONKIT_FUZZ_SEED")
LOG = os.environ.get("CAPTIONKIT_FUZZ_LOG")
ENDLESS = 60  # seconds of the processor for one input, which take none but milliseconds
MEMORY = 512 * 2**20  # bytes that a target may hold beyond what it began with


class Endless(BaseException):
    """An input that still takes work after ENDLESS seconds; no `except Exception` catches it."""


def fuzz(
    target: str,
    make: Maker,
    read: Callable[[Any], object],
    refuses: bool = True,
    memory: int = MEMORY,
) -> None:
    """Call `read` with many inputs that `make` makes; only errors of our own may come out of it.

    Each of them has to say something. Fails also where all inputs are read, or all refused: then
    the inputs test nothing. refuses: whether `read` refuses any at all. memory: bytes that all of
    it may take at a time.
    """
    outcomes: Counter[str] = Counter()
    distinct: set[bytes] = set()

    def one(dice: bytes) -> None:
        given_input = make(Dice(dice))
        shown = repr(given_input)
        note(f"{target}: {shown:.2000}")
        distinct.add(hashlib.blake2b(shown.encode(), digest_size=8).digest())
        with watched(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are not errors outside of tests
            try:
                read(given_input)
            except CaptionkitError as error:
                outcomes["refused" if str(error).strip() else "says nothing"] += 1
                error.__traceback__ = None  # its frames may hold it: what they opened would stay
            else:
                outcomes["read"] += 1

    run = given(st.binary(min_size=Dice.SIZE, max_size=Dice.SIZE))(one)
    if SEED is not None:
        run = seed(f"{target} {SEED}")(run)
    run = settings(
        max_examples=EXAMPLES, derandomize=SEED is None, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )(run)  # fmt: skip
    with memory_bound(target, memory):
        run()
    if LOG:
        row = {"target": target, "seed": SEED, "inputs": outcomes.total(),
               "distinct": len(distinct), **outcomes}  # fmt: skip
        with open(LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    assert not outcomes["says nothing"], target
    assert outcomes["read"], f"{target}: not one of {outcomes.total()} inputs could be read"
    assert bool(outcomes["refused"]) == refuses, (
        f"{target}: {outcomes['refused']} of {outcomes.total()} inputs refused"
    )


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raise Endless in what works longer than ENDLESS seconds, however busy the machine is."""

    def stop(*_: object) -> None:
        raise Endless(f"still at it after {ENDLESS} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, ENDLESS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def memory_bound(what: str, most: int) -> Iterator[None]:
    """Fail where the process held more than `most` bytes more than it began with, on Linux."""
    if not sys.platform.startswith("linux"):
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _peak()
    yield
    grown = _peak() - before
    assert grown <= most, f"{what}: the memory grew by {grown / 2**20:,.0f} MiB"


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
