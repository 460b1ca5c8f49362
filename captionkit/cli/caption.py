"""captionkit caption: one image or a million"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import tyro

from captionkit.bulk.config import BulkConfig
from captionkit.cli.form import given_on, parse
from captionkit.errors import ConfigError, DataError
from captionkit.processes import is_main_process
from captionkit.recipe import Decoding


@dataclasses.dataclass
class _Caption:
    images: Annotated[
        list[str], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES ...", help_behavior_hint="")
    ]
    """Images, folders, lists (.txt, .jsonl, .csv, .parquet), .tar shards, globs or URLs."""
    model: str
    """A folder that captionkit or transformers wrote, or a hub id."""
    backend: str = "auto"
    """auto, torch, flax, or a plugin's."""
    device: str | None = None
    """cpu, cuda, mps, ...; default: the best there is."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""
    bulk: BulkConfig = dataclasses.field(default_factory=BulkConfig)
    decoding: Decoding = dataclasses.field(default_factory=Decoding)


def caption(arguments: list[str]) -> None:
    """Caption image files, folders and collections."""
    given = parse(_Caption, "caption", caption.__doc__, arguments)
    if not given.images:
        raise ConfigError("Which images? Give files, folders or URLs.")
    settings = {**given_on(arguments, given.bulk), **given_on(arguments, given.decoding)}
    if given.bulk.to_files:
        _to_files(given, settings)
    else:
        _print(given, settings)


def _to_files(given: _Caption, settings: dict[str, Any]) -> None:
    from captionkit.bulk import caption_files
    from captionkit.bulk.item import displayed

    result = caption_files(
        given.images, given.model, backend=given.backend, device=given.device,
        trust_remote_code=given.trust_remote_code, **settings,
    )  # fmt: skip
    if not is_main_process():
        return
    output = displayed(str(result.output))
    beside = given.bulk.kind == "txt" and given.bulk.output is None
    if given.bulk.dry_run:
        more = ", ..." if result.captioned > len(result.first) else ""
        some = ", ".join(map(displayed, result.first)) + more
        _line("to caption", result.captioned, f"   {some}" if some else "")
    else:
        speed = result.captioned / max(result.seconds, 1e-9)
        pace = f"   in {_duration(result.seconds)} ({speed:.1f} images/s)"
        _line("captioned", result.captioned, pace if result.captioned else "")
    if result.done:
        _line("done", result.done, "   captioned before; --restart forgets that")
    if result.kept:
        hint = "   have a caption; --existing overwrite, append or prepend changes them"
        _line("kept", result.kept, hint)
    if result.failed:
        file = f"   {displayed(str(result.failed_file))}" if result.failed_file else ""
        _line("failed", result.failed, f"{file}; --retry-failed tries them again")
    if given.bulk.review_below is not None and not given.bulk.dry_run:
        file = f"   {displayed(str(result.review_file))}" if result.review_file else ""
        _line("doubtful", result.doubtful, f"   score below {given.bulk.review_below:g}{file}")
    print(f"captions   {f'a .txt beside each image, in {output}' if beside else output}")
    if not (result.captioned or result.kept or result.done):
        raise DataError("No image could be captioned.")


def _print(given: _Caption, settings: dict[str, Any]) -> None:
    from captionkit.api import load, processes_of
    from captionkit.bulk.company import help_out, led, shared_out
    from captionkit.bulk.printing import print_captions
    from captionkit.bulk.run import split_settings
    from captionkit.bulk.sources import check_sources, find_images

    def captioner() -> Any:
        return load(given.model, given.backend, given.device, None, given.trust_remote_code)

    processes = processes_of(given.model, given.backend, given.trust_remote_code)
    if processes.index:
        help_out(processes, captioner)
        return
    with led(processes):
        config, decoding = split_settings(settings)
        check_sources(given.images)
        # everything that can be wrong with the sources is said before a model is loaded
        found = sum(1 for _ in find_images(given.images, config.image_column, contents=False))
        if config.dry_run:
            _line("to caption", found)
            return
        model, config = shared_out(captioner(), config, processes)
        items = find_images(given.images, config.image_column)
        print_captions(model, items, config, decoding)


def _line(name: str, count: int, more: str = "") -> None:
    print(f"{name:<10} {count:,}{more}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
