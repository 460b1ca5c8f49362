"""One zip file: fetched, checked, and given its name only then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionkit.download import verify
from captionkit.download.transfer import fetch_file
from captionkit.errors import DataError


@dataclass(frozen=True)
class Checksum:
    """A SHA-256 that a file should have, and who says so."""

    sha256: str
    source: str


def fetch_zip(
    address: str,
    target: Path,
    size: int | None,
    checksum: Checksum | None,
    say: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch a zip file to `target`, by way of target.part, and say how it went.

    size: in bytes, which the server's has to have; None: whatever it has. Without a checksum those
    inside the zip are compared. One that is not what it should be is set aside as target.damaged,
    with a DataError.
    """
    part = part_of(target)
    with progress(target.name, size) as bar:

        def on_bytes(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        fetch_file(address, part, size, on_bytes, lambda text: say(f"{target.name}: {text}"), wait)
    found = measured(part, target.name)
    if checksum is None:
        damage = verify.zip_damage(part)
        told = f"its files are whole; no SHA-256 of it is published, this one has {found}"
    else:  # one that holds says all
        damage = wrong_checksum(found, checksum)
        told = f"SHA-256 as it should be ({checksum.source})"
    if damage:
        damaged = target.with_name(f"{target.name}.damaged")
        os.replace(part, damaged)
        raise DataError(
            f"{address}: what has come is damaged, or another file: {damage}. It is kept as "
            f"{damaged}: delete it, or rename it to {target.name} if you trust it. The same "
            "command fetches it anew."
        )
    verify.write_checksum(target, found)
    os.replace(part, target)
    say(f"{target.name}: {readable(target.stat().st_size)} fetched, {told}")


def measured(file: Path, name: str) -> str:
    """The SHA-256 of a file, with a progress bar."""
    with progress(f"checking {name}", file.stat().st_size) as bar:
        return verify.sha256_of(file, bar.update)


def wrong_checksum(found: str, checksum: Checksum) -> str | None:
    """What is wrong with a SHA-256, or None."""
    if found == checksum.sha256:
        return None
    return f"its SHA-256 is {found}, and should be {checksum.sha256} ({checksum.source})"


def part_of(target: Path) -> Path:
    """Where a file lies until it is whole."""
    return target.with_name(f"{target.name}.part")


@contextmanager
def progress(title: str, size: int | None) -> Iterator[Any]:
    """A bar of bytes on standard error; none where that is not a terminal."""
    from tqdm import tqdm

    with tqdm(
        total=size, desc=title, unit="B", unit_scale=True, disable=None, file=sys.stderr
    ) as bar:
        yield bar


def readable(size: int) -> str:
    """Bytes in GB, MB or kB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
