"""Training checkpoints on disk: `checkpoint-N` folders whose manifest of checksums is written last.

A folder without a manifest that holds was cut off while it was written, or damaged since; resuming
passes over it and says so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from captionkit.errors import CaptionkitError, CheckpointError, OutputError, first_line

MANIFEST = "captionkit-manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


@contextlib.contextmanager
def removed_unless_written(folder: Path, what: str = "", in_run: bool = True) -> Iterator[None]:
    """Within the block a checkpoint is written; where that fails its room is given back.

    what: its name in the message, where it is no checkpoint. in_run: whether there is a run that
    could go on. Raises OutputError, also for what safetensors, torch and orbax make of an error of
    the system's.
    """
    free = ""
    try:
        yield
    except CaptionkitError:
        raise
    except Exception as error:
        # some libraries do not say that the disk is full
        with contextlib.suppress(OSError):
            free = f" ({shutil.disk_usage(folder.parent).free:,} bytes are free there)"
        shutil.rmtree(folder, ignore_errors=True)
        whole = next((f for f in _newest_first(folder.parent) if damage(f) is None), None)
        kept = f"resume goes on from {whole.name}" if whole else "no checkpoint was saved yet"
        raise OutputError(
            f"{what or folder.name} could not be written to {folder.parent}: {first_line(error)}"
            f"{free}. Make room, or make the folder writable again{f'; {kept}' if in_run else ''}."
        ) from error


def begin(folder: Path, size: int = 0) -> None:
    """Make the empty folder of a new checkpoint, in the place of what a killed run left there.

    size: of what will be written, in bytes. Raises OSError where there is no room for it: better
    than what libraries say that run out of it half way.
    """
    if not folder.parent.is_dir():  # never make it anew: the rest of the run is not in it
        raise FileNotFoundError(errno.ENOENT, "the folder of the run is gone", str(folder.parent))
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, f"no space left on the device for {size:,} bytes")


def move_durably(folder: Path, destination: Path) -> None:
    """Move the files of a folder, which are on the disk before they take the place of others."""
    for path in folder.iterdir():
        _sync(path)
    for path in folder.iterdir():
        os.replace(path, destination / path.name)
    folder.rmdir()
    _sync(destination)


def write_manifest(folder: Path) -> None:
    """Make a checkpoint whole: record the size and SHA-256 of each of its files, durably.

    The files are on the disk before the manifest is, for the checkpoint before may be removed next.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            _sync(path)
        elif path.name != MANIFEST:
            _sync(path)
            files[path.relative_to(folder).as_posix()] = {
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
            }
    write_atomically(folder / MANIFEST, json.dumps({"version": 1, "files": files}, indent=1))
    _sync(folder.parent)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None if its manifest holds."""
    if not folder.is_dir():
        return "it is missing"
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


def newest_whole(output_dir: Path) -> Path | None:
    """The newest checkpoint whose manifest holds; damaged ones give a warning that names them.

    None, with a warning, where the run was cut off before its first one was whole. Raises
    CheckpointError where there was one, or a model, and nothing of it can be gone on from.
    """
    found = _newest_first(output_dir)
    for folder in found:
        wrong = damage(folder)
        if wrong is None:
            return folder
        warnings.warn(f"Passing over {folder}: {wrong}.", stacklevel=2)
    if all(map(was_cut_off, found)) and not list(output_dir.glob("model*.safetensors")):
        warnings.warn(
            f"No checkpoint was saved in {output_dir} yet: starting from the first step.",
            stacklevel=2,
        )
        return None
    detail = "none of its checkpoints is whole" if found else "it holds no checkpoint-N folder"
    raise CheckpointError(
        f"Cannot resume in {output_dir}: {detail}. Start anew with overwrite_output_dir, or in "
        "another folder."
    )


def prune(output_dir: Path, keep: int | None, best_step: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the best one.

    What cannot be removed is a warning: that is no reason to end a run.
    """
    if keep is None:
        return
    for folder in sorted(all_checkpoints(output_dir), key=step_of)[:-keep]:
        if step_of(folder) == best_step:
            continue
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass  # somebody else removes it at the same time
        except OSError as error:
            warnings.warn(f"{folder} cannot be removed: {error.strerror}.", stacklevel=2)


def was_cut_off(folder: Path) -> bool:
    """Whether a checkpoint was never written to its end."""
    return not (folder / MANIFEST).exists()


def _newest_first(output_dir: Path) -> list[Path]:
    return sorted(all_checkpoints(output_dir), key=step_of, reverse=True)


def all_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoint-N folders of a run, whole or not."""
    return [p for p in output_dir.glob("checkpoint-*") if _NAME.fullmatch(p.name) and p.is_dir()]


def step_of(folder: Path) -> int:
    """The N of checkpoint-N."""
    match = _NAME.fullmatch(folder.name)
    assert match, folder
    return int(match.group(1))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, sees the old content or the new.

    A lone surrogate, as in names that are not UTF-8, becomes its JSON escape.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed processes left of files that they wrote atomically, or as `whole_file`."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.\d+\.(tmp|partial)", path.name):
            path.unlink()


def _sync(path: Path) -> None:
    """Bring a file or the names in a folder to the disk itself."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # not on every system can folders be opened
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise  # not every file system can do it
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
