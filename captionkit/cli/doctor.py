"""captionkit doctor"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from captionkit.cli.form import given_on, parse, shown
from captionkit.errors import ConfigError
from captionkit.recipe import DataConfig


@dataclasses.dataclass
class _Doctor:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = ""
    """A source (see `captionkit datasets`), a folder, a csv, jsonl or Parquet file, or a hub id."""
    model: str | None = None
    """Also count the captions' tokens, against the limit of this model."""
    format: Literal["text", "json"] = "text"
    """What goes to standard output."""
    html: Path | None = None
    """Also write a page with pictures to this file."""
    near_duplicates: bool = False
    """Also look for pictures that look nearly the same."""
    strict: bool = False
    """End with status 1 for warnings too."""
    min_side: int = 32
    """A picture whose shorter side has fewer pixels is tiny."""
    max_pixels: int = 50_000_000
    """A picture of more pixels is huge."""
    max_words: int = 100
    """A caption of more words is long."""
    threads: int | None = None
    """Threads that decode images; default: one a core."""
    trust_remote_code: bool = False
    """Run code that comes with the model's tokenizer."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)


def doctor(arguments: list[str]) -> int:
    """Find what is wrong with a dataset, before training."""
    given = parse(_Doctor, "doctor", doctor.__doc__, arguments)
    from captionkit.doctor.examine import examined
    from captionkit.doctor.images import Limits
    from captionkit.doctor.text import as_text

    data = given_on(arguments, given.data)
    if given.source and "dataset" in data:
        raise ConfigError(f"{given.source!r} and --dataset {data['dataset']} name two datasets.")
    name = given.source or data.pop("dataset", "")
    diagnosis, listing = examined(
        name, data, Limits(given.min_side, given.max_pixels, given.near_duplicates), given.model,
        given.max_words, given.threads, given.trust_remote_code, progress=True,
    )  # fmt: skip
    if given.format == "json":
        # ascii: names of files may not be valid Unicode, and pipes may not be UTF-8
        print(json.dumps(diagnosis.to_dict(), indent=1))
    else:
        print(as_text(diagnosis))
    if given.html is not None:
        from captionkit.doctor.page import write_page

        page = write_page(given.html, diagnosis, listing)
        print(f"page       {shown(page.absolute())}   (open it in a browser)", file=sys.stderr)
    return 0 if diagnosis.passes(given.strict) else 1
