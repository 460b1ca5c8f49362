"""The settings of a bulk run, beside those of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from captionkit.errors import ConfigError
from captionkit.recipe import Decoding
from captionkit.settings import check_types, require

_BY_ENDING = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class BulkConfig:
    """What is done with the captions of many images."""

    format: Literal["text", "jsonl", "txt", "metadata", "csv", "parquet"] | None = None
    """text: to standard output, as jsonl without --output; txt: a .txt beside each image, or in the
    folder --output; metadata: metadata.jsonl as imagefolder reads it; default: by the ending of
    --output."""
    output: str | None = None
    """The file that captions go to; for txt the folder."""
    existing: Literal["skip", "overwrite", "append", "prepend"] | None = None
    """For images that have a caption there already; default: skip."""
    prefix: str = ""
    """Put in front of every caption."""
    suffix: str = ""
    """Put behind every caption."""
    trigger: str = ""
    """A word that every caption begins with, unless it has it already."""
    separator: str = ", "
    """Between the trigger word, an earlier caption and the new one."""
    review_below: float | None = None
    """List the captions with a score below this (a log-probability, such as -1.5), worst first, in
    a file of their own."""
    token_probabilities: bool = False
    """Keep the probability of every token (jsonl and parquet)."""
    image_column: str | None = None
    """Column of a csv, jsonl or Parquet file with the images (default: the usual names)."""
    retry_failed: bool = False
    """Try the images again that failed in an earlier run."""
    restart: bool = False
    """Forget what earlier runs did here, and do it again."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""
    batch_size: int = 16
    """Images captioned at once."""
    workers: int | None = None
    """Threads that decode images; default: one a core, at most 16."""
    seed: int = 0
    """Of sampling; with the image's pixels it decides each draw."""
    on_bad_image: Literal["stop", "skip"] = "skip"
    """An image that cannot be read is listed and skipped, or stops the run."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "batch_size", self.batch_size >= 1, "at least 1")
        require(self, "workers", self.workers is None or self.workers >= 1, "at least 1")
        require(self, "seed", self.seed >= 0, "0 or more")
        ending = Path(self.output or "").suffix.lower()
        if self.format is None and self.output is not None and ending not in _BY_ENDING:
            raise ConfigError(
                f"output={self.output!r} ends in none of {', '.join(_BY_ENDING)}: say which format "
                "it is to have (for txt it is a folder)."
            )
        if self.format == "text" and self.output is not None:
            raise ConfigError(
                "The format text goes to standard output. For a file choose jsonl, csv or parquet; "
                "txt writes a file an image, into the folder output."
            )
        other = _BY_ENDING.get(ending, self.format)
        if self.format in _BY_ENDING.values() and other != self.format:
            raise ConfigError(
                f"output={self.output!r} does not end as format={self.format!r} does."
            )
        if self.format in ("csv", "parquet") and self.output is None:
            raise ConfigError(
                f"The format {self.format} needs output, for example captions.{self.format}."
            )
        if not self.to_files and (self.existing or self.retry_failed or self.restart):
            raise ConfigError(
                "existing, retry_failed and restart are about files of captions. Give output, or "
                "format=txt or metadata."
            )

    @property
    def kind(self) -> str:
        """The format, found from the ending of the output where it is not said."""
        return self.format or _BY_ENDING.get(Path(self.output or "").suffix.lower(), "text")

    @property
    def to_files(self) -> bool:
        """Whether captions are kept in files, rather than printed."""
        return self.output is not None or self.format in ("txt", "metadata")

    def check_rows(self, decoding: Decoding) -> None:
        """Raise ConfigError where the format cannot hold what is asked for."""
        if self.kind in ("jsonl", "parquet"):
            return
        if self.token_probabilities:
            raise ConfigError(
                f"The format {self.kind} has no place for token_probabilities; jsonl and parquet "
                "have."
            )
        if decoding.num_return_sequences > 1 and self.kind != "text":
            raise ConfigError(
                f"The format {self.kind} holds one caption an image, and num_return_sequences is "
                f"{decoding.num_return_sequences}. For alternatives choose jsonl or parquet."
            )
