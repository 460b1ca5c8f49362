"""The quickstart with three seeds: how well, how fast, and the share of faultless captions."""

from __future__ import annotations

import tempfile
import time

from results import keep

import captionkit
from captionkit.data.critters import attributes, names_every_attribute
from captionkit.evaluation import read_predictions

SEEDS = (1, 2, 3)


def main() -> None:
    critters = attributes()
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            result = captionkit.finetune("quickstart", output_dir=f"{folder}/run", seed=seed)
            seconds = time.perf_counter() - start
            predictions = read_predictions(result.output_dir / "captionkit")
        right = [
            names_every_attribute(p.prediction, critters[int(p.image_id.split("-")[-1])])
            for p in predictions
        ]
        rows.append(
            {
                "seed": seed,
                "wer": result.metrics["wer"],
                "every_attribute_right": sum(right) / len(right),
                "seconds": seconds,
            }
        )
        print(
            f"seed {seed}: WER {rows[-1]['wer']:.4f}, every attribute right "
            f"{rows[-1]['every_attribute_right']:.1%}, {seconds:.0f} s"
        )
    keep(
        "quickstart", {"title": "quickstart", "target": {"wer": 0.10, "seconds": 240}, "runs": rows}
    )


if __name__ == "__main__":
    main()
