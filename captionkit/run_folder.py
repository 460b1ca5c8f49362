"""The folder of a run: what is written where, and what must not be overwritten."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.checkpoints import all_checkpoints, write_atomically
from captionkit.errors import OutputError
from captionkit.evaluation import Evaluation, read_predictions, write_evaluation
from captionkit.hub import model_card
from captionkit.processes import is_main_process

if TYPE_CHECKING:
    import PIL.Image

    from captionkit.data.dataset import CaptionDataset
    from captionkit.recipe import Recipe
    from captionkit.tracking import Tracking

_MODEL_FILES = ("model*.safetensors*", "pytorch_model*.bin", "*.json", "vocab.txt", "merges.txt")


class RunFolder:
    """`root` is the output_dir, which holds the model; `folder` is `root/captionkit`."""

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / "captionkit"
        self.recipe = self.folder / "recipe.yaml"
        self.history = self.folder / "history.jsonl"
        self.skipped = self.folder / "skipped.jsonl"

    def check(self, recipe: Recipe) -> None:
        """Raise OutputError unless the run may and can write here. Changes nothing."""
        if not is_main_process():
            return
        if self.root.exists() and not self.root.is_dir():
            raise OutputError(f"output_dir {self.root} is a file. Choose a folder.")
        existing = self.root
        while not existing.exists():
            existing = existing.parent
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise OutputError(
                f"Cannot write to output_dir {self.root}: {error.strerror}. Choose another folder."
            ) from None
        used = self.root.is_dir() and any(self.root.iterdir())
        if not used or recipe.resume:
            return
        if not recipe.overwrite_output_dir:
            go_on = "resume=True goes on, " if all_checkpoints(self.root) else ""
            raise OutputError(
                f"output_dir {self.root} is not empty: {go_on}overwrite_output_dir=True replaces "
                "the earlier run. Or choose another folder."
            )
        if not self.folder.is_dir():
            raise OutputError(
                f"output_dir {self.root} holds files, but not those of an earlier run (there is no "
                "captionkit/ in it), so nothing there is overwritten. Choose another folder."
            )

    @contextlib.contextmanager
    def locked(self, recipe: Recipe) -> Iterator[RunFolder]:
        """Make the folder ready for the run and write its recipe; failures are OutputErrors."""
        if not is_main_process():
            yield self
            return
        try:
            if recipe.overwrite_output_dir and not recipe.resume:
                self._remove_earlier_run()
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = recipe.replace(resume=False, overwrite_output_dir=False)
            write_atomically(self.recipe, kept.to_yaml())
        except OSError as error:
            raise OutputError(
                f"Cannot write to output_dir {self.root}: {error.strerror}. Choose another folder."
            ) from None
        yield self

    def _remove_earlier_run(self) -> None:
        for checkpoint in all_checkpoints(self.root):
            shutil.rmtree(checkpoint)
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        for pattern in _MODEL_FILES:
            for path in self.root.glob(pattern):
                path.unlink()

    def metrics(self) -> dict[str, float]:
        """The metrics of the weights that were kept."""
        path = self.folder / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def finish(
        self,
        recipe: Recipe,
        tracking: Tracking,
        train: CaptionDataset,
        validation: CaptionDataset | None,
    ) -> Path:
        """Write run.json, the sample grid, the model card and the report; returns the report."""
        info = {
            "command": "finetune",
            "backend": recipe.backend,
            "dataset": train.name,
            "train_images": len(train),
            "validation_images": len(validation) if validation is not None else 0,
            "skipped": len(tracking.skipped),
            **tracking.summary(),
        }
        evaluated = validation is not None and (self.folder / "predictions.jsonl").exists()
        predictions = read_predictions(self.folder) if evaluated else []
        if evaluated:
            self._write_model_card(recipe)
        result = Evaluation(self.metrics(), predictions, [])
        return _write_pages(self.folder, info, result, validation, title=self.root.resolve().name)

    def _write_model_card(self, recipe: Recipe) -> None:
        card = self.root / "README.md"
        if not card.exists() or "captionkit" in card.read_text(encoding="utf-8", errors="replace"):
            write_atomically(card, model_card(self.root, recipe))


def write_evaluation_report(
    folder: Path, evaluation: Evaluation, dataset: CaptionDataset, facts: dict[str, Any]
) -> Path:
    """Write the predictions, metrics and report of an evaluation into a folder of its own.

    facts: what run.json says besides: `seconds`, and `backend`, `device`, `versions`, ...
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_evaluation(folder, evaluation)
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}.") from None
    info = {
        "command": "evaluate",
        "dataset": dataset.name,
        "validation_images": len(dataset),
        "skipped": len(evaluation.skipped),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "images_per_second": round(len(evaluation.predictions) / max(facts["seconds"], 1e-9), 2),
        **facts,
    }
    return _write_pages(folder, info, evaluation, dataset, title=folder.name)


def _write_pages(
    folder: Path,
    info: dict[str, Any],
    evaluation: Evaluation,
    dataset: CaptionDataset | None,
    title: str,
) -> Path:
    from captionkit.collapse import collapse_warning
    from captionkit.report import write_grid, write_report

    predictions = evaluation.predictions
    if warning := collapse_warning(
        [row.prediction for row in predictions], [row.references for row in predictions]
    ):
        info["warnings"] = [warning]
        warnings.warn(warning, stacklevel=2)
    info["versions"] = {"captionkit": version("captionkit"), **info.get("versions", {})}
    write_atomically(folder / "run.json", json.dumps(info, indent=2) + "\n")
    if dataset is None or not predictions:
        return write_report(folder, None, title)
    picture = _pictures(dataset, [row.image_id for row in predictions])
    shown = [i for i, row in enumerate(predictions) if row.before is not None]
    shown = shown or list(range(min(8, len(predictions))))
    before = [predictions[i].before or "" for i in shown]
    write_grid(
        folder / "samples.png",
        [picture(i) for i in shown],
        [predictions[i].prediction for i in shown],
        before if any(before) else None,
        [next(iter(predictions[i].references), "") for i in shown],
    )
    return write_report(folder, picture, title)


def _pictures(dataset: CaptionDataset, image_ids: list[str]) -> Callable[[int], PIL.Image.Image]:
    position = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
    return lambda row: dataset[position[image_ids[row]]].image
