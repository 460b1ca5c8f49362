"""captionkit download"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from captionkit.cli.form import parse


@dataclasses.dataclass
class _Download:
    dataset: Annotated[Literal["coco"], tyro.conf.Positional]
    """The data set: coco."""
    data_dir: Path
    """Where its files go; what is there already is left alone."""
    year: Literal["2014", "2017"] = "2017"
    """Of COCO."""
    parts: tuple[str, ...] = ("train", "val", "annotations")
    """Of train, val, test, annotations and karpathy; with commas or spaces between."""
    mirror: str | None = None
    """Address that takes the place of the makers' servers; the paths below it are the same."""
    sha256: Path | None = None
    """A file of checksums as sha256sum writes it; they go before those that captionkit knows."""
    unchecked: bool = False
    """Take what the server has, also where its size and SHA-256 are not the published ones."""


def download(arguments: list[str]) -> None:
    """Fetch a data set: COCO's zip files, resumed and checked."""
    given = parse(_Download, "download", download.__doc__, arguments)
    from captionkit.download.coco import download_coco

    parts = [part for group in given.parts for part in group.split(",") if part]
    download_coco(given.data_dir, given.year, parts, given.mirror, given.sha256, given.unchecked)
    print(f"\nUse it with: --dataset coco --data-dir {given.data_dir}")
