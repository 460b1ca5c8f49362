"""Where a bulk run puts things: the captions, what failed, what to review, and its own state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.bulk.item import displayed
from captionkit.bulk.sources import folder_of
from captionkit.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from captionkit.bulk.config import BulkConfig


@dataclass(frozen=True)
class Place:
    """The paths of a run, all absolute.

    home: the folder that images are named relative to. output: the file of captions, or the folder
    of .txt files; None where they lie beside the images. state: the run's own folder.
    """

    home: Path
    output: Path | None
    state: Path
    failed: Path
    review: Path

    @property
    def journal(self) -> Path:
        """What was done so far."""
        return self.state / "journal.jsonl"

    @classmethod
    def of(cls, config: BulkConfig, sources: Sequence[str]) -> Place:
        """The places for these settings and sources. Raises ConfigError and OutputError."""
        output = Path(os.path.abspath(Path(config.output).expanduser())) if config.output else None
        if config.kind == "txt":
            home = output or Path(folder_of(sources[0]))
            name, stem = "txt", "captions"
            if output and output.exists() and not output.is_dir():
                raise OutputError(f"{displayed(str(output))} is a file; txt needs a folder.")
        else:
            if config.kind == "metadata":
                output = _metadata_file(output, sources)
            assert output is not None
            home, name, stem = output.parent, output.name, output.stem
            if output.is_dir():
                raise OutputError(f"{displayed(str(output))} is a folder; name a file in it.")
        return cls(
            home, output, home / ".captionkit" / name,
            home / f"{stem}.failed.jsonl", home / f"{stem}.review.jsonl",
        )  # fmt: skip

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folders, for this run alone; the lock dies with the process.

        Raises OutputError where nothing can be written, or another run writes.
        """
        import filelock

        try:
            self.state.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.state / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise OutputError(
                f"Another run is captioning into {displayed(str(self.output or self.home))}. Wait "
                "for it, or choose another output."
            ) from None
        except OSError as error:
            raise OutputError(
                f"Cannot write to {displayed(str(self.home))}: {error.strerror}. Captions can go "
                "elsewhere: --output captions.jsonl, or --format txt --output FOLDER."
            ) from None
        try:
            yield
        finally:
            lock.release()


def _metadata_file(output: Path | None, sources: Sequence[str]) -> Path:
    if output is None:
        if len(sources) > 1 or not os.path.isdir(sources[0]):
            raise ConfigError(
                "metadata.jsonl lies at the top of one folder of images. Caption one folder, or "
                "say with output where it goes."
            )
        output = Path(os.path.abspath(sources[0]))
    if output.is_dir():
        output = output / "metadata.jsonl"
    if output.name != "metadata.jsonl":
        raise ConfigError(
            f"imagefolder reads metadata.jsonl and no other name: found output={str(output)!r}."
        )
    rival = output.with_name("metadata.csv")
    if rival.exists():
        raise OutputError(
            f"{displayed(str(rival.parent))} has a metadata.csv, and with a metadata.jsonl beside "
            "it none would be read. Convert it, or take it away."
        )
    return output
