"""The folder of a run: what is written where, and what must not be overwritten."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.checkpoints import (
    all_checkpoints,
    remove_temporary_files,
    step_of,
    was_cut_off,
    write_atomically,
)
from captionkit.errors import ConfigError, DataError, OutputError
from captionkit.evaluation import (
    Evaluation,
    Prediction,
    read_predictions,
    write_evaluation,
    write_skipped,
)
from captionkit.model_card import is_untouched_card, model_card
from captionkit.processes import is_main_process
from captionkit.recipe import Recipe, field_names

if TYPE_CHECKING:
    import PIL.Image

    from captionkit.data.dataset import CaptionDataset
    from captionkit.tracking import Tracking

# what a run writes beside its own folder, and nothing else, is replaced by the next
_MODEL_FILES = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
_OF_DISKS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE,
}  # fmt: skip
# not best_metric and load_best: the evaluation on record is that of the weights that they chose
_MAY_CHANGE = {
    "epochs", "max_steps", "logging_steps", "eval_steps", "save_steps", "save_total_limit",
    "early_stopping_patience", "metrics", "eval_batch_size",
    "push_to_hub", "hub_model_id", "trust_remote_code", "on_bad_image", "workers", "image_cache_gb",
    "data_dir", "train_file", "validation_file", "test_file", "backend_options", "output_dir",
    "resume", "overwrite_output_dir", *field_names("decoding"),
}  # fmt: skip


class RunFolder:
    """`root` is the output_dir, which holds the model; `folder` is `root/captionkit`."""

    def __init__(self, root: Path):
        self.root = Path(os.path.abspath(root.expanduser()))
        self.folder = self.root / "captionkit"
        self.recipe = self.folder / "recipe.yaml"
        self.history = self.folder / "history.jsonl"
        self.skipped = self.folder / "skipped.jsonl"
        self._earlier = self.root / ".earlier"

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
        if recipe.resume:
            self._check_same_run(recipe)
            return
        if not self.root.is_dir() or self._is_unused():
            return
        if not recipe.overwrite_output_dir:
            go_on = "resume goes on, " if all_checkpoints(self.root) else ""
            raise OutputError(
                f"output_dir {self.root} is not empty: {go_on}overwrite_output_dir replaces the "
                "earlier run. Or choose another folder."
            )
        if not self.recipe.is_file():
            raise OutputError(
                f"output_dir {self.root} holds files, but not those of an earlier run (there is no "
                "captionkit/recipe.yaml in it), so nothing there is overwritten. Choose another "
                "folder."
            )
        data = recipe.data
        for given in (
            recipe.model, recipe.encoder, recipe.decoder, data.data_dir, data.train_file,
            data.validation_file, data.test_file,
            *(
                entry.get(name)
                for entry in data.mix
                for name in ("data_dir", "train_file", "validation_file", "test_file")
            ),
        ):  # fmt: skip
            path = Path(given).expanduser() if given else None
            if path and path.exists() and path.resolve().is_relative_to(self.root.resolve()):
                raise OutputError(
                    f"{path} lies in output_dir {self.root}, which would be overwritten. Choose "
                    "another output_dir."
                )

    def stored_recipe(self) -> Recipe:
        """The recipe of the run that is in the folder. Raises OutputError where there is none."""
        if not self.recipe.is_file():
            raise OutputError(
                f"There is no run to resume in {self.root}: no captionkit/recipe.yaml in it."
            )
        return Recipe.from_file(self.recipe)

    @contextlib.contextmanager
    def locked(self, recipe: Recipe, resume_step: int | None) -> Iterator[RunFolder]:
        """Make the folder ready for the run, for this run alone; failures are OutputErrors.

        The lock is the operating system's and dies with the process. An earlier run that is to be
        overwritten is put aside, and is back where this one ends before it has `started`.
        """
        if not is_main_process():
            yield self
            return
        import filelock

        lock = filelock.FileLock(self.folder / ".lock", timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with lock:
                self._prepare(recipe, resume_step)
                try:
                    yield self
                finally:
                    self._bring_back_earlier_run()
        except filelock.Timeout:
            raise OutputError(
                f"Another run is writing to {self.root}. Wait for it, or choose another folder."
            ) from None

    @contextlib.contextmanager
    def disk_errors(self) -> Iterator[None]:
        """What the system says of the run's folder, as an error of ours that says how to go on."""
        try:
            yield
        except OSError as error:
            inside = error.filename and self.root in Path(str(error.filename)).parents
            if not (inside or (error.filename is None and error.errno in _OF_DISKS)):
                raise
            where = error.filename if inside else self.root
            raise OutputError(
                f"Cannot write to {where}: {error.strerror}. Make room, or make the folder "
                "writable again; resume goes on from the last checkpoint."
            ) from error

    def _prepare(self, recipe: Recipe, resume_step: int | None) -> None:
        try:
            remove_temporary_files(self.folder)
            if resume_step is not None:
                self._set_aside_later_than(resume_step)
            else:
                self._bring_back_earlier_run()  # that of a process which was killed
                if not self._is_unused():
                    _move(self._files_of_run(), self.root, self._earlier)
            kept = recipe.replace(resume=False, overwrite_output_dir=False)
            write_atomically(self.recipe, kept.to_yaml())
        except OSError as error:
            raise OutputError(
                f"Cannot write to output_dir {self.root}: {error.strerror}. Choose another folder."
            ) from None

    def _is_unused(self) -> bool:
        """Whether there is nothing here, or only what a run left that did not get to a step."""
        if any(path != self.folder for path in self.root.iterdir()):
            return False
        if not self.folder.is_dir() or {p.name for p in self.folder.iterdir()} <= {".lock"}:
            return True
        started = self.history.exists() and self.history.read_bytes().strip()
        return self.recipe.is_file() and not started

    def _check_same_run(self, recipe: Recipe) -> None:
        stored, wanted = self.stored_recipe().flat(), recipe.flat()
        wanted["backend"] = stored["backend"] if wanted["backend"] == "auto" else wanted["backend"]
        changed = [
            f"{name} was {stored[name]!r} and is {wanted[name]!r} now"
            for name in stored
            if name not in _MAY_CHANGE and stored[name] != wanted[name]
        ]
        if changed:
            raise ConfigError(
                f"The run in {self.root} cannot go on as another one: {'; '.join(changed)}. Resume "
                f"it with its own recipe, {self.recipe}, or start anew in another folder."
            )

    def _set_aside_later_than(self, step: int) -> None:
        # they were passed over as damaged; beside new ones of their numbers they would confuse
        for checkpoint in all_checkpoints(self.root):
            if step_of(checkpoint) > step and was_cut_off(checkpoint):
                shutil.rmtree(checkpoint)  # many kills would fill the disk with them
            elif step_of(checkpoint) > step:
                aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
                shutil.rmtree(aside, ignore_errors=True)
                checkpoint.rename(aside)

    def started(self) -> None:
        """The run is under way: what it overwrites is removed for good."""
        if is_main_process():
            shutil.rmtree(self._earlier, ignore_errors=True)

    def _files_of_run(self) -> list[Path]:
        return [
            *all_checkpoints(self.root),
            *(path for path in self.folder.iterdir() if path.name != ".lock"),
            *(path for pattern in _MODEL_FILES for path in self.root.glob(pattern)),
        ]

    def _bring_back_earlier_run(self) -> None:
        if not self._earlier.is_dir():
            return
        refused = self.root / ".refused"  # what the run wrote that did not get to its start
        shutil.rmtree(refused, ignore_errors=True)
        _move(self._files_of_run(), self.root, refused)
        kept = [path for path in self._earlier.iterdir() if path.name != self.folder.name]
        inside = self._earlier / self.folder.name
        _move([*kept, *(inside.iterdir() if inside.is_dir() else ())], self._earlier, self.root)
        shutil.rmtree(self._earlier)
        shutil.rmtree(refused)

    def metrics(self) -> dict[str, float]:
        """The metrics of the weights that were kept."""
        path = self.folder / "metrics.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} is damaged ({error!r:.200}). Evaluate it again.") from None
        if not isinstance(values, dict):
            raise DataError(f"{path} should hold values by name. Evaluate the model again.")
        return values

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
            "train_images": len(train) if hasattr(train, "__len__") else None,  # a stream has none
            "validation_images": len(validation) if validation is not None else 0,
            "skipped": len(tracking.skipped),
            **tracking.summary(),
        }
        evaluated = validation is not None and (self.folder / "predictions.jsonl").exists()
        predictions = read_predictions(self.folder) if evaluated else []
        self._write_model_card(recipe, self.metrics() if evaluated else {}, predictions)
        result = Evaluation(self.metrics(), predictions, [])
        return _write_pages(self.folder, info, result, validation, title=self.root.resolve().name)

    def _write_model_card(
        self, recipe: Recipe, metrics: dict[str, float], predictions: list[Prediction]
    ) -> None:
        card = self.root / "README.md"
        if not card.exists() or is_untouched_card(card.read_text("utf-8", errors="replace")):
            write_atomically(card, model_card(self.root, recipe, metrics, predictions))


def write_evaluation_report(
    folder: Path, evaluation: Evaluation, dataset: CaptionDataset, facts: dict[str, Any]
) -> Path:
    """Write the predictions, metrics and report of an evaluation into a folder of its own.

    facts: what run.json says besides: `seconds`, and `backend`, `device`, `versions`, ... Raises
    OutputError.
    """
    info = {
        "command": "evaluate",
        "dataset": dataset.name,
        "validation_images": len(dataset),
        "skipped": len(evaluation.skipped),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "images_per_second": round(len(evaluation.predictions) / max(facts["seconds"], 1e-9), 2),
        **facts,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_evaluation(folder, evaluation)
        write_skipped(folder, evaluation)
        return _write_pages(folder, info, evaluation, dataset, title=folder.name)
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}.") from None


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


def _move(paths: Iterable[Path], home: Path, destination: Path) -> None:
    """Move files and folders of `home` to the same places in `destination`."""
    destination.mkdir(exist_ok=True)
    for path in paths:
        target = destination / path.relative_to(home)
        target.parent.mkdir(exist_ok=True)
        os.replace(path, target)
