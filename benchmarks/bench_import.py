"""`import captionkit`, in fresh processes, beside an empty one: under 0.1 s."""

from __future__ import annotations

import statistics
import subprocess
import sys

from results import interleaved, keep

REPEATS = 15


def main() -> None:
    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    seconds = interleaved(
        {"nothing": lambda: run("pass"), "captionkit": lambda: run("import captionkit")}, REPEATS
    )
    pairs = zip(seconds["nothing"], seconds["captionkit"], strict=True)
    cost = statistics.median(ours - nothing for nothing, ours in pairs)
    print(f"import captionkit: {cost * 1000:.0f} ms over an empty process (target: under 100 ms)")
    keep("import", {"title": "import captionkit", "seconds": seconds, "cost": cost, "target": 0.1})


if __name__ == "__main__":
    main()
