"""How cost grows with images, caption length, beams, batch, depth and devices, on both backends.

A small GIT (width 128, 4 + 4 layers, 96 pixels) with random weights. Of each line one thing grows
and the rest stays; what is kept is the seconds of every repeat. Devices are Flax's alone: the host
split in so many (`--xla_force_host_platform_device_count`), a process each, with one batch shared
over them, so that on as many cores as before nothing can be gained: the line says what sharing
costs.

    python benchmarks/bench_growth.py [images] [length] [beams] [batch] [depth] [compile] [devices]
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import small_git
from results import interleaved, keep

SIZE, REPEATS = 96, 3
TITLE = "GIT of width 128, 4 + 4 layers, 96 px, fp32, CPU"
GROWS = {
    "images": ("images to caption, 16 tokens, batches of 8", (8, 16, 32, 64)),
    "length": ("tokens a caption, 8 images", (8, 16, 32, 64)),
    "beams": ("beams, 8 images, 16 tokens", (1, 2, 4, 8)),
    "batch": ("images of a training step, 16 tokens", (2, 4, 8, 16)),
    "depth": ("layers in either encoder, a training step of 8 images", (2, 4, 8, 16)),
    "compile": ("layers in either encoder, the first step of 8 images", (2, 4, 8, 16)),
    "devices": ("devices of one host that share a training step of 16 images", (1, 2, 4)),
}


def main() -> None:
    wanted = sys.argv[1:] or list(GROWS)
    lines = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = small_git.write(Path(scratch) / "git")
        for name in wanted:
            what, values = GROWS[name]
            started = time.perf_counter()
            lines[name] = {"what": what, "values": values, "seconds": measured(name, folder)}
            for side, seconds in lines[name]["seconds"].items():
                told = ", ".join(
                    f"{value}: {sorted(some)[len(some) // 2]:.3f} s"
                    for value, some in zip(values, seconds, strict=True)
                )
                print(f"{name:<8} {side:<6} {told}")
            print(f"  took {time.perf_counter() - started:.0f} s")
    if list(lines) == list(GROWS):
        keep("growth", {"title": TITLE, "lines": lines})


def measured(name: str, folder: Path) -> dict[str, list[list[float]]]:
    """By backend, for each value of what grows, the seconds of every repeat."""
    values = GROWS[name][1]
    if name == "devices":
        return {"flax": [on_devices(folder, count) for count in values]}
    if name in ("depth", "compile"):
        found = [deep(folder, layers)[name] for layers in values]
    elif name == "batch":
        steps = {"torch": small_git.torch_step, "flax": small_git.flax_step}
        found = [
            interleaved({side: step(folder, rows, 16) for side, step in steps.items()}, REPEATS, 2)
            for rows in values
        ]
    else:
        import captionkit

        sides = {side: captionkit.load(folder, backend=side) for side in ("torch", "flax")}
        found = [
            interleaved({s: captioning(name, one, value) for s, one in sides.items()}, REPEATS)
            for value in values
        ]
    return {side: [seconds[side] for seconds in found] for side in found[0]}


def captioning(name: str, captioner: object, value: int) -> Callable[[], None]:
    count = value if name == "images" else 8
    settings = {
        "max_new_tokens": value if name == "length" else 16,
        "num_beams": value if name == "beams" else 1,
        "batch_size": 8,
    }
    pictures = small_git.images(count, SIZE)
    return lambda: captioner.caption(pictures, **settings)


@functools.cache
def deep(folder: Path, layers: int) -> dict[str, dict[str, list[float]]]:
    """Training steps of a model of that depth: steady ones, and the first, which Flax compiles."""
    deeper = small_git.write(folder.parent / f"git-{layers}", layers)
    steps = {"torch": small_git.torch_step, "flax": small_git.flax_step}
    made = {side: make(deeper, 8, 16) for side, make in steps.items()}
    first = {}
    for side, step in made.items():  # once: a second one would not be the first
        started = time.perf_counter()
        step()
        first[side] = [time.perf_counter() - started]
    return {"compile": first, "depth": interleaved(made, REPEATS)}


def on_devices(folder: Path, count: int) -> list[float]:
    """The step of 16 images in a process whose host has so many devices."""
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    command = [sys.executable, __file__, "on", str(folder), str(count)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    return json.loads(output.splitlines()[-1])


def run(folder: str, count: str) -> None:
    step = small_git.flax_step(Path(folder), 16, 16, devices=int(count))
    print(json.dumps(interleaved({"flax": step}, REPEATS, 2)["flax"]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["on"]:
        run(*sys.argv[2:])
    else:
        main()
