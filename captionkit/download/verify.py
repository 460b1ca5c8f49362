"""Whether a zip file is what was published: by its SHA-256, or by the checksums inside it."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from captionkit.data.zips import ZIP_ERRORS
from captionkit.errors import DataError

_CHUNK = 2**22
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def sha256_of(file: Path, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """The SHA-256 of a file in hexadecimal; `on_bytes` is called with the size of each piece."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def zip_damage(file: Path) -> str | None:
    """What is wrong with a zip file, or None; each member is read and compared with its CRC."""
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except (OSError, *ZIP_ERRORS) as error:
        return str(error) or type(error).__name__
    return None if bad is None else f"{bad} in it is damaged"


def read_checksums(file: Path) -> dict[str, str]:
    """SHA-256 by file name, from the lines that `sha256sum` writes. Raises DataError."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a list of checksums: {error}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise DataError(
                f"{file}, line {number}: expected 64 hexadecimal digits, two spaces and a file "
                f"name, as `sha256sum` writes them, found {line!r:.80}."
            )
        found[Path(match[2]).name] = match[1].lower()
    return found


def write_checksum(file: Path, digest: str) -> None:
    """Write NAME.sha256 beside a file, for `sha256sum -c` and for later comparisons."""
    sidecar(file).write_text(f"{digest}  {file.name}\n", encoding="utf-8")


def sidecar(file: Path) -> Path:
    """Where the checksum of a file is noted."""
    return file.with_name(f"{file.name}.sha256")
