"""METEOR 1.5, computed by its own Java program, which the user supplies."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO, ClassVar

from captionkit.errors import MetricError
from captionkit.metrics import java
from captionkit.metrics.pairs import require_references
from captionkit.metrics.ptb import ptb_tokenize
from captionkit.types import Scores

_VARIABLE = "CAPTIONKIT_METEOR_JAR"


class Meteor:
    """METEOR 1.5: alignment of words, stems, synonyms and paraphrases (1 is best). Needs its jar.

    M. Denkowski, A. Lavie, "METEOR universal", 2014, run as the COCO evaluation runs it
    (`-l en -norm`, on its tokens); a fraction from 0 to 1; over the corpus from summed statistics,
    so not the mean of the images.

    jar: the path of meteor-1.5.jar, with data/paraphrase-en.gz beside it; default: the environment
    variable CAPTIONKIT_METEOR_JAR. Without Java there is `meteor_nltk`, whose values differ.
    """

    keys: ClassVar[tuple[str, ...]] = ("meteor",)
    higher_is_better: ClassVar[bool] = True

    def __init__(self, jar: str | os.PathLike[str] | None = None) -> None:
        self._jar = java.find_jar("meteor", jar, _VARIABLE)
        self._questions: list[str] = []

    @staticmethod
    def missing() -> str | None:
        """What it lacks on this machine, or None."""
        return java.missing("meteor-1.5", _VARIABLE)

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""
        require_references(references, len(self._questions))
        # of three bars the tokenisation makes three tokens, so none can be taken for a separator
        texts = [ptb_tokenize(text) for text in (*references, prediction)]
        self._questions.append(" ||| ".join(["SCORE", *texts]))

    def compute(self) -> Scores:
        """`meteor` over all pairs, and for each. Raises `MetricError` where the program fails."""
        if not self._questions:
            return Scores({"meteor": 0.0}, {"meteor": []})
        with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
            try:
                *per_image, corpus = self._ask(errors)
            except (OSError, ValueError):
                errors.seek(0)
                reason = java.complaint(errors.read())
                raise MetricError(
                    f"METEOR failed on {len(self._questions)} pairs: {reason}"
                ) from None
        return Scores({"meteor": corpus}, {"meteor": per_image})

    def _ask(self, errors: IO[str]) -> list[float]:
        arguments = ["-", "-", "-stdio", "-l", "en", "-norm"]
        with subprocess.Popen(
            java.command(self._jar, "2G", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
        ) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            statistics = []
            for question in self._questions:
                program.stdin.write(question + "\n")
                program.stdin.flush()
                statistics.append(program.stdout.readline().strip())
            program.stdin.write(" ||| ".join(["EVAL", *statistics]) + "\n")
            program.stdin.close()
            return [float(program.stdout.readline()) for _ in range(len(statistics) + 1)]
