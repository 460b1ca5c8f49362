"""The Flax backend beside the Flax classes that transformers removed, and beside torch.

CAPTIONKIT_LEGACY_PYTHON names a Python that has what constraints-legacy.txt lists; the session
`nox -s bench -- bench_flax` makes one. The contestants are processes that take turns.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "flax_peers"))
from results import keep, report
from turns import Contestant

SCRIPTS = Path(__file__).parent / "flax_peers"
STEPS, CAPTIONINGS = 5, 9


def main() -> None:
    legacy = os.environ.get("CAPTIONKIT_LEGACY_PYTHON")
    if not legacy:
        sys.exit("Set CAPTIONKIT_LEGACY_PYTHON, or run: nox -s bench -- bench_flax")
    wanted = sys.argv[1:] or ["training", "generation"]
    if "training" in wanted:
        for rows in (8, 4):
            training(legacy, rows)
    if "generation" in wanted:
        for name, beams, targets in (("greedy", 1, (1.4, 1.2)), ("8_beams", 8, (2.3, 1.7))):
            generation(legacy, name, beams, targets)


def training(legacy: str, rows: int) -> None:
    """Compilation, steady steps and memory of ViT-B + GPT-2."""
    peer = Contestant(legacy, SCRIPTS / "transformers_flax.py")
    ours = Contestant(sys.executable, SCRIPTS / "captionkit_flax.py")
    sides = {"transformers": peer, "captionkit": ours}
    for side in sides.values():
        side.ask("prepare", size="base")
    what = f"ViT-B + GPT-2, fp32, CPU, batch {rows}"
    first = {name: [side.ask("start_training", rows=rows)] for name, side in sides.items()}
    report(f"flax_first_step_{rows}", f"{what}: compile and first step", first, target=6.0)
    for side in sides.values():
        side.ask("peak", reset=True)
    steady: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(STEPS):
        for name, side in sides.items():
            steady[name].append(side.ask("train"))
    report(f"flax_step_{rows}", f"{what}: a training step", steady, target=1.0)
    peaks = {name: side.ask("peak") for name, side in sides.items()}
    print(f"  peak memory  {', '.join(f'{name} {peak:,.0f} MiB' for name, peak in peaks.items())}")
    keep(f"flax_step_memory_{rows}", {"title": f"{what}: peak memory of a step", "mib": peaks})
    for side in sides.values():
        side.close()


def generation(legacy: str, name: str, beams: int, targets: tuple[float, float]) -> None:
    """8 images to captions of 32 tokens, ViT-S + GPT-2 of 6 layers."""
    sides = {
        "transformers": Contestant(legacy, SCRIPTS / "transformers_flax.py"),
        "torch": Contestant(sys.executable, SCRIPTS / "transformers_torch.py"),
        "captionkit": Contestant(sys.executable, SCRIPTS / "captionkit_flax.py"),
    }
    for side in sides.values():
        side.ask("prepare", size="small")
        side.ask("start_generating", rows=8, beams=beams)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(CAPTIONINGS):
        for side, contestant in sides.items():
            times[side].append(contestant.ask("generate"))
    for contestant in sides.values():
        contestant.close()
    what = f"8 images, 32 tokens, ViT-S + 6-layer GPT-2, fp32, CPU, {name.replace('_', ' ')}"
    for peer, target in zip(("transformers", "torch"), targets, strict=True):
        pair = {peer: times[peer], "captionkit": times["captionkit"]}
        report(f"flax_generate_{name}_against_{peer}", f"{what}, against {peer}", pair, target)


if __name__ == "__main__":
    main()
