"""What every metric asks of its input, checked pair by pair with errors that name the pair."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from captionkit.errors import MetricError


class EmptyPredictionWarning(UserWarning):
    """Some predictions were empty; the message counts them and names the first."""


class PairCheck:
    """Checks pairs as they stream by, and remembers which predictions were empty."""

    def __init__(self) -> None:
        self.count = 0
        self.empty_count = 0
        self.first_empty: list[int] = []

    def check(self, prediction: object, references: object) -> tuple[str, list[str]]:
        """The pair with its references as a list. Raises `MetricError` that names its index."""
        index = self.count
        self.count += 1
        if not isinstance(prediction, str):
            raise MetricError(
                f"Prediction {index} should be text, found {type(prediction).__name__}."
            )
        given = [references] if isinstance(references, str) else references
        if not isinstance(given, (list, tuple)):
            raise MetricError(
                f"The references of pair {index} should be text or a list of texts, "
                f"found {type(references).__name__}."
            )
        for reference in given:
            if not isinstance(reference, str):
                raise MetricError(
                    f"Each reference of pair {index} should be text, "
                    f"found {type(reference).__name__}."
                )
        require_references(given, index)
        if not prediction.strip():
            self.empty_count += 1
            if len(self.first_empty) < 10:
                self.first_empty.append(index)
        return prediction, list(given)

    def warn(self, stacklevel: int = 2) -> None:
        """Say once how many predictions were empty, and which; stacklevel as in `warnings`."""
        if not self.empty_count:
            return
        listed = ", ".join(map(str, self.first_empty))
        more = ", ..." if self.empty_count > len(self.first_empty) else ""
        warnings.warn(
            f"{self.empty_count} of {self.count} predictions are empty (pairs {listed}{more}); "
            "they are scored as they are.",
            EmptyPredictionWarning,
            stacklevel=stacklevel + 1,
        )


def require_references(references: Sequence[str], index: int) -> None:
    """Raise `MetricError` for a pair that has no reference."""
    if not references:
        raise MetricError(f"Pair {index} has no reference: give each prediction at least one.")
