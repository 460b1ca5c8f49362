"""Timing beside a peer: interleaved, repeated, medians; printed and kept as JSON."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_NAMED = ("captionkit", "torch", "transformers", "jax", "flax", "numpy", "pillow")


def interleaved(
    contestants: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, the contestants taking turns, after `warm_up` rounds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(-warm_up, repeats):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


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
        "versions": {package: v for package in _NAMED if (v := _version(package))},
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**about, **values}, indent=1) + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
