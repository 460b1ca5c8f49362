"""Timing beside a peer: interleaved, repeated, medians; printed and kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_DISTURBED, _ATTEMPTS = 0.1, 3  # cores that other processes may use, and rounds until one is quiet
_NAMED = ("captionkit", "torch", "transformers", "jax", "flax", "numpy", "pillow")


def interleaved(
    contestants: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, the contestants taking turns, after `warm_up` rounds of each.

    A round during which other processes took a part of the machine is repeated, a few times.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(-warm_up, repeats):
        for attempt in range(_ATTEMPTS):
            found = {}
            disturbed = 0.0
            for name, run in contestants.items():
                start, others = time.perf_counter(), _cpu_of_others()
                run()
                found[name] = time.perf_counter() - start
                disturbed = max(disturbed, (_cpu_of_others() - others) / found[name])
            if repeat < 0 or disturbed < _DISTURBED:
                break
            print(f"  disturbed: others used {disturbed:.2f} cores (attempt {attempt + 1})")
        if repeat >= 0:
            for name, value in found.items():
                seconds[name].append(value)
    return seconds


def _cpu_of_others() -> float:
    """Seconds of processor time that other processes have used; 0 where that is not known."""
    try:
        fields = [int(x) for x in Path("/proc/stat").read_text().split()[1:9]]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = fields
    busy = user + nice + system + irq + softirq + steal
    children = os.times().children_user + os.times().children_system
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time() - children


def report(name: str, title: str, seconds: Mapping[str, list[float]], target: float) -> None:
    """Print and keep how many times faster the last contestant is than the first.

    The ratio is the median of the ratios of neighbouring runs, which a noisy machine harms least.
    """
    peer, *_, ours = seconds
    ratios = [a / b for a, b in zip(seconds[peer], seconds[ours], strict=True)]
    print(f"{title}  ({len(ratios)} interleaved repeats)")
    for contestant, values in seconds.items():
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"  {contestant:<14} median {statistics.median(values):.3f} s   ({spread})")
    ratio = statistics.median(ratios)
    print(f"  ratio {ratio:.2f}x   (target {target}x, {min(ratios):.2f} to {max(ratios):.2f})")
    keep(name, {"title": title, "seconds": dict(seconds), "ratio": ratio, "target": target})


def keep(name: str, values: Mapping[str, Any]) -> None:
    """Write a result to benchmarks/results/NAME.json, with the date and the versions."""
    RESULTS.mkdir(exist_ok=True)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "versions": {package: v for package in _NAMED if (v := _version(package))},
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**about, **values}, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    """The model of the processor, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
