"""Training checkpoints on disk: `checkpoint-N` folders whose manifest of checksums is written last.

A folder without a manifest that holds was cut off while it was written, or damaged since; resuming
passes over it and says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path

from captionkit.errors import CheckpointError

MANIFEST = "captionkit-manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def write_manifest(folder: Path) -> None:
    """Make a checkpoint whole: record the size and SHA-256 of each of its files, durably."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_atomically(folder / MANIFEST, json.dumps({"version": 1, "files": files}, indent=1))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None if its manifest holds."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"].items()
        for name, expected in files:
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
                return f"{name} is damaged"
    except FileNotFoundError:
        return "it was not written to the end (no manifest)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    return None


def newest_whole(output_dir: Path) -> Path:
    """The newest checkpoint whose manifest holds; damaged ones give a warning that names them."""
    found = sorted(all_checkpoints(output_dir), key=step_of, reverse=True)
    for folder in found:
        wrong = damage(folder)
        if wrong is None:
            return folder
        warnings.warn(f"Passing over {folder}: {wrong}.", stacklevel=2)
    detail = "none of its checkpoints is whole" if found else "it holds no checkpoint-N folder"
    raise CheckpointError(
        f"Cannot resume in {output_dir}: {detail}. Start anew with overwrite_output_dir, or in "
        "another folder."
    )


def prune(output_dir: Path, keep: int | None, best_step: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the best one."""
    if keep is None:
        return
    for folder in sorted(all_checkpoints(output_dir), key=step_of)[:-keep]:
        if step_of(folder) != best_step:
            shutil.rmtree(folder)


def all_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoint-N folders of a run, whole or not."""
    return [p for p in output_dir.glob("checkpoint-*") if _NAME.fullmatch(p.name) and p.is_dir()]


def step_of(folder: Path) -> int:
    """The N of checkpoint-N."""
    match = _NAME.fullmatch(folder.name)
    assert match, folder
    return int(match.group(1))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, sees the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
