"""What a run left in its folder, read tolerantly: any file may be missing, any line damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionkit.errors import DataError
from captionkit.settings import parse_yaml

FILES = ("metrics.json", "predictions.jsonl", "history.jsonl", "run.json", "recipe.yaml")


@dataclass(frozen=True)
class Prediction:
    """One row of predictions.jsonl; `index` is its place there, from 0."""

    index: int
    image_id: str
    text: str
    references: tuple[str, ...]
    before: str | None
    confidence: float | None  # exp(score) in percent
    metrics: dict[str, float]  # finite values only


@dataclass(frozen=True)
class Run:
    """A run as its files tell it. `history` may hold NaN and infinities: they are news."""

    folder: Path
    recipe: dict[str, Any]
    history: list[dict[str, float]]
    metrics: dict[str, float]
    predictions: list[Prediction]
    facts: dict[str, Any]  # run.json
    problems: list[str]  # what could not be read, in sentences

    @property
    def name(self) -> str:
        """The name of the output folder."""
        folder = self.folder.resolve()
        return folder.parent.name if folder.name == "captionkit" else folder.name

    @property
    def title(self) -> str:
        """The model and the dataset, or else the folder."""
        model = self.recipe.get("model") or self.recipe.get("encoder")
        data = self.recipe.get("data")
        dataset = self.facts.get("dataset") or (isinstance(data, dict) and data.get("dataset"))
        parts = [Path(str(model)).name if model else self.name, str(dataset) if dataset else ""]
        return " on ".join(part for part in parts if part)


def read_run(folder: Path) -> Run:
    """Read a run's folder. Raises DataError where none of its files is there."""
    folder = Path(folder)
    if not any((folder / name).is_file() for name in FILES):
        raise DataError(
            f"{folder} holds no run: expected some of {', '.join(FILES)}. They are written by "
            "finetune and evaluate into the folder captionkit/ of their output."
        )
    problems: list[str] = []
    recipe = _read_yaml(folder / "recipe.yaml", problems)
    metrics = _read_json(folder / "metrics.json", problems)
    facts = _read_json(folder / "run.json", problems)
    history = [_numbers(row) for _, row in _rows(folder / "history.jsonl", problems)]
    predictions = [_prediction(i, row) for i, row in _rows(folder / "predictions.jsonl", problems)]
    return Run(folder, recipe, history, _numbers(metrics), predictions, facts, problems)


def _read_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        values = None
    return _mapping(values, path, problems)


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        values = None
    return _mapping(values, path, problems)


def _mapping(values: Any, path: Path, problems: list[str]) -> dict[str, Any]:
    if isinstance(values, dict):
        return {str(key): value for key, value in values.items()}
    problems.append(f"{path.name} could not be read, so this page does without it.")
    return {}


def _rows(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a jsonl file with their places, damaged ones counted and left out."""
    try:
        lines = [line for line in path.read_text("utf-8", "replace").split("\n") if line.strip()]
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"{path.name} could not be read: {error.strerror}.")
        return
    damaged = 0
    for index, line in enumerate(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield index, row
        else:
            damaged += 1
    if damaged:
        lines_are = "1 line of" if damaged == 1 else f"{damaged} lines of"
        problems.append(f"{lines_are} {path.name} could not be read and left out.")


def _prediction(index: int, row: dict[str, Any]) -> Prediction:
    references = row.get("references") or []
    references = references if isinstance(references, list) else [references]
    before, metrics = row.get("before"), row.get("metrics")
    values = _numbers(metrics if isinstance(metrics, dict) else {})
    image_id, text = row.get("image_id"), row.get("prediction")
    return Prediction(
        index=index,
        image_id=str(index if image_id is None else image_id),
        text="" if text is None else str(text),
        references=tuple(str(reference) for reference in references),
        before=None if before is None else str(before),
        confidence=_confidence(row.get("score")),
        metrics={key: value for key, value in values.items() if math.isfinite(value)},
    )


def _confidence(score: Any) -> float | None:
    """A mean log-probability as a percentage."""
    return 100 * math.exp(min(0.0, score)) if _is_number(score) and score == score else None


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {str(key): value for key, value in row.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    # an integer of hundreds of digits is no measurement, and no float either
    return isinstance(value, float) or (type(value) is int and abs(value) < 10**18)
