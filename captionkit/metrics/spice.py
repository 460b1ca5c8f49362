"""SPICE, computed by its own Java program, which the user supplies."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from captionkit.errors import MetricError
from captionkit.metrics import java
from captionkit.metrics.pairs import require_references
from captionkit.metrics.ptb import ptb_tokenize
from captionkit.metrics.statistics import mean
from captionkit.types import Scores

_VARIABLE = "CAPTIONKIT_SPICE_JAR"


class Spice:
    """SPICE: objects, attributes and relations that agree (1 is best). Needs its jar.

    P. Anderson et al., "SPICE: semantic propositional image caption evaluation", 2016: the
    F-measure of the tuples in the scene graphs of caption and references; a fraction from 0 to 1;
    over the corpus the mean. A caption for which the program gives no value counts 0.

    jar: the path of spice-1.0.jar, with its lib folder and the models of Stanford CoreNLP 3.6.0;
    default: the environment variable CAPTIONKIT_SPICE_JAR. It needs Java 8 and up to 8 GB.
    """

    keys: ClassVar[tuple[str, ...]] = ("spice",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, jar: str | os.PathLike[str] | None = None) -> None:
        self._jar = java.find_jar("spice", jar, _VARIABLE)
        self._pairs: list[dict[str, Any]] = []

    @staticmethod
    def missing() -> str | None:
        """What it lacks on this machine, or None."""
        return java.missing("spice-1.0", _VARIABLE)

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._pairs))
        self._pairs.append(
            {
                "image_id": len(self._pairs),
                "test": ptb_tokenize(prediction),
                "refs": [ptb_tokenize(reference) for reference in references],
            }
        )

    def compute(self) -> Scores:
        """The mean over all pairs, and the value of each. Raises `MetricError` where it fails."""
        if not self._pairs:
            return Scores({"spice": 0.0}, {"spice": []})
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "pairs.json").write_text(json.dumps(self._pairs), encoding="utf-8")
            (folder / "cache").mkdir()
            arguments = [str(folder / "pairs.json"), "-cache", str(folder / "cache")]
            arguments += ["-out", str(folder / "scores.json"), "-subset", "-silent"]
            run = subprocess.run(
                java.command(self._jar, "8G", *arguments),
                cwd=self._jar.parent,
                capture_output=True,
                text=True,
            )
            try:
                rows = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
                scores = {row["image_id"]: row["scores"]["All"]["f"] for row in rows}
                per_image = [float(scores[i] or 0.0) for i in range(len(self._pairs))]
            except (OSError, ValueError, LookupError, TypeError):
                raise MetricError(
                    f"SPICE failed on {len(self._pairs)} pairs (exit status {run.returncode}): "
                    f"{java.complaint(run.stderr or run.stdout)}"
                ) from None
        return Scores({"spice": mean(per_image)}, {"spice": per_image})
