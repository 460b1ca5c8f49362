"""`captionkit download coco`: COCO's zip files, which captionkit reads as they are."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from captionkit.data.fetch import is_url
from captionkit.download import verify
from captionkit.download.coco_files import RemoteFile, files_of, is_unpacked
from captionkit.download.transfer import remote_size
from captionkit.download.zip_file import (
    Checksum,
    fetch_zip,
    measured,
    part_of,
    readable,
    wrong_checksum,
)
from captionkit.errors import ConfigError, DataError, OutputError

_MARGIN = 100_000_000  # bytes that stay free


def download_coco(
    data_dir: str | Path,
    year: str = "2017",
    parts: Sequence[str] = ("train", "val", "annotations"),
    mirror: str | None = None,
    sha256: str | Path | None = None,
    unchecked: bool = False,
    say: Callable[[str], None] = print,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch COCO's zip files into a folder; what is there already is left alone.

    parts: of train, val, test, annotations and karpathy. mirror: "http://host/..." to take the
    place of the makers' servers; the paths below it are theirs. sha256: a file of checksums as
    `sha256sum` writes it, which go before those that are known. unchecked: take files that are not
    the published ones. say: called with a line for each file. wait: called with the seconds
    between two attempts.

    Raises ConfigError, DataError where a server or a file is not as it should be, and OutputError
    where there is no room or another download is at work. A file has its name only when it is
    whole; until then it is NAME.part, and the next call goes on with it.
    """
    if mirror and not is_url(mirror):
        raise ConfigError(f"mirror={mirror!r} should be an address that begins with https:// .")
    files = files_of(parts, year)
    given = {
        name: Checksum(digest, f"by {sha256}")
        for name, digest in (verify.read_checksums(Path(sha256)) if sha256 else {}).items()
    }
    root = Path(data_dir).expanduser().absolute()
    with _locked(root):
        wanted = [
            file
            for file in files
            if not _is_there(root / file.name, file, given.get(file.name), unchecked, say)
        ]
        addresses = [f"{(mirror or file.server).rstrip('/')}{file.path}" for file in wanted]
        sizes = [None if unchecked else file.size for file in wanted]
        announced = [
            size or remote_size(address) for size, address in zip(sizes, addresses, strict=True)
        ]
        targets = [root / file.name for file in wanted]
        _check_room(dict(zip(targets, announced, strict=True)), root)
        for file, target, address, size in zip(wanted, targets, addresses, sizes, strict=True):
            checksum = given.get(file.name) or _known_checksum(file, target, unchecked)
            fetch_zip(address, target, size, checksum, say, wait)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    import filelock

    # the lock is the operating system's and dies with the process
    lock = filelock.FileLock(root / ".captionkit-download.lock", timeout=0)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with lock:
            yield
    except filelock.Timeout:
        raise OutputError(f"Another download is writing to {root}. Wait for it.") from None
    except OSError as error:
        raise OutputError(f"{root} cannot be written: {error.strerror or error}.") from None


def _is_there(
    target: Path,
    file: RemoteFile,
    checksum: Checksum | None,
    unchecked: bool,
    say: Callable[[str], None],
) -> bool:
    if not target.exists():
        unpacked = is_unpacked(file.name, target.parent)
        if unpacked:
            say(f"{file.name}: there already, unpacked")
        return unpacked
    size = target.stat().st_size
    if not unchecked and checksum is None and file.size not in (None, size):
        raise DataError(
            f"{target} is there with {size:,} bytes, but the published file has {file.size:,}. "
            f"Delete it; or, if it was only cut off, rename it to {part_of(target).name} and it is "
            "gone on with."
        )
    if checksum and (damage := wrong_checksum(measured(target, file.name), checksum)):
        raise DataError(f"{target} is there, but {damage}. Delete it, and it is fetched anew.")
    told = f", SHA-256 as it should be ({checksum.source})" if checksum else ""
    say(f"{file.name}: there already, {readable(size)}{told}")
    return True


def _check_room(sizes: dict[Path, int | None], root: Path) -> None:
    needed = {}
    for target, size in sizes.items():
        part = part_of(target)
        there = part.stat().st_size if part.exists() else 0
        needed[target.name] = max(0, (size or 0) - there)
    free = shutil.disk_usage(root).free
    if needed and sum(needed.values()) + _MARGIN > free:
        each = ", ".join(f"{name} {readable(size)}" for name, size in needed.items())
        raise OutputError(
            f"{root} has {readable(free)} free, and {readable(sum(needed.values()))} are needed "
            f"({each}). Make room, choose another data_dir, or fetch fewer parts."
        )


def _known_checksum(file: RemoteFile, target: Path, unchecked: bool) -> Checksum | None:
    """The published one, or that of an earlier download."""
    if unchecked:
        return None
    if file.sha256:
        return Checksum(file.sha256, "as recorded by TensorFlow Datasets")
    noted = verify.sidecar(target)
    digest = verify.read_checksums(noted).get(target.name) if noted.exists() else None
    return Checksum(digest, f"by {noted}") if digest else None
