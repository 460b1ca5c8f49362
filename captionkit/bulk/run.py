"""Captioning a collection into files: a run told from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captionkit import models
from captionkit.bulk.company import help_out, led, shared_out
from captionkit.bulk.config import BulkConfig
from captionkit.bulk.item import displayed, where_of
from captionkit.bulk.journal import Journal
from captionkit.bulk.lists import write_failed, write_review
from captionkit.bulk.place import Place
from captionkit.bulk.progress import BulkProgress
from captionkit.bulk.resuming import caption_settings, take_up
from captionkit.bulk.sources import check_sources, find_images
from captionkit.bulk.survey import Looked, Survey, look
from captionkit.bulk.table_file import TableFile
from captionkit.bulk.text_files import TextFiles
from captionkit.bulk.writing import Written, caption_and_write, disk_errors
from captionkit.errors import CaptioningInterrupted, ConfigError, ImageError
from captionkit.interrupt import stop_requested_by_signal
from captionkit.processes import Processes
from captionkit.recipe import Decoding, field_names
from captionkit.settings import unknown_setting
from captionkit.types import Captioner

_PATHS = ("output", "failed_file", "review_file")
_STOPPING = "stopping after this batch (once more to stop at once)"


@dataclass(frozen=True)
class BulkResult:
    """What `caption_files` did, or in a dry run would do.

    captioned: how many images were captioned now.
    kept: how many stayed with the caption that they have.
    done: how many were captioned by the same run before it was interrupted.
    failed: how many have no caption, now or from an earlier run; `failed_file` lists them.
    doubtful: how many captions have a score below `review_below`; `review_file` lists them.
    output: the file of captions, or the folder of .txt files.
    failed_file, review_file: None where there is nothing to list.
    first: in a dry run the first names of the images to caption.
    """

    captioned: int
    kept: int
    done: int
    failed: int
    doubtful: int
    seconds: float
    output: Path
    failed_file: Path | None
    review_file: Path | None
    first: list[str] = field(default_factory=list)

    @classmethod
    def told(cls, fields: dict[str, Any]) -> BulkResult:
        """The result of process 0, as another one gets to know it."""
        paths = {n: fields[n] and Path(fields[n]) for n in _PATHS}
        return cls(**{**fields, **paths})


def caption_files(
    images: str | Path | Sequence[str | Path],
    model: Captioner | str | Path,
    *,
    backend: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    **settings: Any,
) -> BulkResult:
    """Caption folders, lists, tables, tar shards, globs and URLs into files.

    images: one or many of them. model: a folder, a hub id, or what `load` returned. settings:
    `output=`, `format=`, `existing=` and the other fields of `BulkConfig`, and those of `Decoding`.

    Of several processes, which all call it, the first reads and writes, and all of them caption.

    A run that was interrupted, in whatever way, goes on when it is called again. Raises
    `ConfigError`, `DataError`, `OutputError`, `ImageError` under on_bad_image="stop", and
    `CaptioningInterrupted` after Ctrl-C.
    """
    from captionkit.api import load, processes_of

    processes = processes_of(model, backend, trust_remote_code)

    def captioner() -> Captioner:
        if isinstance(model, (str, Path)):
            return load(model, backend, device, None, trust_remote_code)
        return model

    if processes.index:
        return BulkResult.told(help_out(processes, captioner))
    with led(processes) as told:
        result = _caption_files(images, model, captioner, processes, trust_remote_code, settings)
        paths = {name: getattr(result, name) for name in _PATHS}
        told.update(
            dataclasses.asdict(result) | {n: path and str(path) for n, path in paths.items()}
        )
    return result


def _caption_files(
    images: str | Path | Sequence[str | Path],
    model: Captioner | str | Path,
    load: Callable[[], Captioner],
    processes: Processes,
    trust_remote_code: bool,
    given: dict[str, Any],
) -> BulkResult:
    config, decoding = split_settings(given)
    sources = [str(i) for i in ([images] if isinstance(images, (str, Path)) else images)]
    if not sources:
        raise ConfigError("Which images? Give files, folders or URLs.")
    if not config.to_files:
        raise ConfigError("Where do the captions go? Give output, or format=txt or metadata.")
    check_sources(sources)
    place = Place.of(config, sources)
    checkpoint = _checkpoint(model, trust_remote_code)
    with contextlib.ExitStack() as stack:
        if not config.dry_run:
            stack.enter_context(place.locked())
        journal = Journal(place.journal)
        stack.callback(journal.close)
        target = TextFiles(place, config) if config.kind == "txt" else TableFile(place, config)
        with disk_errors(place):
            settings = caption_settings(config, decoding, model, checkpoint)
            take_up(journal, settings, target, config, place)
        pending = journal.places()

        def looked(contents: bool) -> Iterator[Looked]:
            found = find_images(sources, config.image_column, contents)
            return look(found, str(place.home), target, journal, pending, config)

        survey = Survey.of(looked(contents=False))
        if config.dry_run:
            failing = survey.failed + survey.bad
            return BulkResult(
                survey.todo, survey.kept, survey.done, failing, 0, 0.0,
                place.output or place.home, None, None,
                [where_of(key, str(place.home)) for key in survey.first],
            )  # fmt: skip
        total, seconds = Written(), 0.0
        stopped: Exception | None = None
        if survey.todo + survey.bad:
            captioner: Any = load() if survey.todo else model
            if survey.todo:
                captioner, config = shared_out(captioner, config, processes)
            if config.token_probabilities:
                decoding = {**decoding, "token_probabilities": True}
            bar = stack.enter_context(BulkProgress(survey.todo + survey.bad))
            should_stop = stack.enter_context(stop_requested_by_signal(_STOPPING))
            batches = caption_and_write(
                captioner, looked(contents=True), decoding, journal, target, config, place, bar,
                should_stop,
            )  # fmt: skip
            started = time.perf_counter()
            with contextlib.closing(batches):
                for written in batches:
                    total.add(written)
                    if written.failures and config.on_bad_image == "stop":
                        stopped = _bad_image(written, place)
                        break
                    bar.failures(written.failures, place)
            seconds = time.perf_counter() - started
            left = survey.todo + survey.bad - total.images
            if stopped is None and should_stop() and left > 0:
                stopped = _interrupted(total, left, place)
        doubtful = 0
        with disk_errors(place):
            target.finish(journal)
            write_failed(journal, place)
            if config.review_below is not None:
                doubtful = write_review(journal, place, config.review_below)
        if stopped is not None:
            raise stopped
        return BulkResult(
            total.captioned, survey.kept + total.kept, survey.done, survey.failed + total.failed,
            doubtful, seconds, place.output or place.home,
            place.failed if place.failed.exists() else None,
            place.review if doubtful else None,
        )  # fmt: skip


def split_settings(settings: Mapping[str, Any]) -> tuple[BulkConfig, dict[str, Any]]:
    """Flat settings as those of the run, checked, and those of decoding. Raises ConfigError."""
    own = [f.name for f in dataclasses.fields(BulkConfig)]
    decoding_names = field_names("decoding")
    for name in settings:
        if name not in (*own, *decoding_names):
            raise unknown_setting(name, [*own, *decoding_names])
    decoding = {name: value for name, value in settings.items() if name in decoding_names}
    config = BulkConfig(**{name: value for name, value in settings.items() if name in own})
    config.check_rows(Decoding(**decoding))
    return config, decoding


def _checkpoint(model: Any, trust_remote_code: bool) -> Path | None:
    if isinstance(model, (str, Path)):
        return models.resolve_model(str(model), trust_remote_code)
    return getattr(model, "checkpoint", None)


def _bad_image(written: Written, place: Place) -> ImageError:
    row = written.failures[0]
    where = where_of(row["image"], str(place.home))
    return ImageError(
        f"Cannot caption {displayed(where)}: {row['failed']}. The captions so far are kept; "
        "on_bad_image=skip goes on without such images."
    )


def _interrupted(total: Written, left: int, place: Place) -> CaptioningInterrupted:
    return CaptioningInterrupted(
        f"Stopped after {total.captioned:,} captions, which are in "
        f"{displayed(str(place.output or place.home))}. {left:,} images are left: the same command "
        "goes on with them."
    )
