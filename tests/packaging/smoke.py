"""An installed captionkit at work, in a folder without its sources: run by `nox -s package`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

FRAMEWORKS = ("torch", "jax")
IMPORT_SECONDS = 0.3  # ten times what it takes: a framework takes seconds


def main() -> None:
    assert not [name for name in FRAMEWORKS if find_spec(name)], "no framework should be here"
    import captionkit

    home = Path(captionkit.__file__).resolve()
    assert "site-packages" in home.parts, f"{home} is not the installed package"
    assert Path.cwd() not in home.parents
    print(f"{home.parent}\nimport captionkit takes {import_seconds() * 1000:.0f} ms")
    assert "captionkit: fine-tune" in told("--help")
    listed = told("backends").splitlines()
    for name in ("torch", "flax"):
        state = next(line for line in listed if line.startswith(name)).split(maxsplit=1)[1]
        assert state == f'pip install "captionkit[{name}]"', state
    score()
    critters(captionkit)


def import_seconds() -> float:
    """The best of five, above an empty process."""
    best = {}
    for code in ("pass", "import captionkit"):
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds.append(time.perf_counter() - started)
        best[code] = min(seconds)
    more = best["import captionkit"] - best["pass"]
    assert more < IMPORT_SECONDS, f"import captionkit takes {more:.2f} s"
    return more


def told(*arguments: str) -> str:
    """What the installed command prints."""
    command = [Path(sys.executable).with_name("captionkit"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def score() -> None:
    """Two small files, against values by hand: one word of six is wrong."""
    rows = [("1", "a red dog", "a red dog"), ("2", "a blue cat", "a blue bird")]
    for name, column in (("predictions", 1), ("references", 2)):
        lines = [json.dumps({"image_id": row[0], "caption": row[column]}) for row in rows]
        Path(f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    output = told("score", "predictions.jsonl", "references.jsonl", "--metrics", "wer")
    assert "wer  0.166667" in output, output


def critters(captionkit) -> None:
    """The data that come with it, and a report, whose templates lie in the package."""
    dataset = captionkit.load_dataset("critters", split="validation")
    assert len(dataset) == 83
    assert len(dataset[0].captions) == 5

    class Parrot:
        def encode(self, images):
            return list(images)

        def caption(self, images, **decoding):
            said = ("a drawing of a creature", "a critter in the snow")
            return [captionkit.Caption(said[i % 2], -1.0) for i in range(len(images))]

        def loss(self, images, captions):
            return 1.0, 1

    result = captionkit.evaluate(
        Parrot(), dataset, metrics=["wer"], max_eval_samples=4, output_dir="evaluation"
    )
    assert len(result.predictions) == 4
    page = Path("evaluation/report.html").read_text(encoding="utf-8")
    assert "a critter in the snow" in page
    assert "<style" in page


if __name__ == "__main__":
    main()
