"""Arrow tables that are made once, kept in captionkit's cache, and memory-mapped ever after."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.whole_files import whole_file

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_ROWS_PER_BATCH = 8192
_ROWS = b"captionkit_rows"
_ENDS = 2**16  # bytes at both ends of a file that belong to its identity


def memory_mapped(
    name: str, made_from: Path, what: tuple[Any, ...], make: Callable[[], pa.Table]
) -> datasets.Dataset:
    """The table that `make` gives, from the cache where it is there.

    It is made anew when the path, the size, the time of change, or the bytes at either end of the
    file `made_from` are others, or when `what` is (whatever else the table depends on). Where the
    cache cannot be written, the table stays in memory, with a warning.
    """
    import datasets

    from captionkit.data.dataset import cache_dir

    file = cache_dir() / "tables" / f"{name}-{_identity(made_from, what)}.arrow"
    if (found := _mapped(file)) is not None:
        return found
    table = make()
    try:
        _write(table, file)
    except OSError as error:
        warnings.warn(
            f"{file.parent} cannot be written ({error.strerror or error}), so {made_from} is read "
            "anew each time. Set CAPTIONKIT_CACHE to a folder that can.",
            stacklevel=2,
        )
        return datasets.Dataset(datasets.table.InMemoryTable(table))
    del table  # before the file takes its place
    written = _mapped(file)
    assert written is not None
    return written


def _identity(file: Path, what: tuple[Any, ...]) -> str:
    status = file.stat()
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr((os.path.abspath(file), status.st_size, status.st_mtime_ns, what)).encode())
    with file.open("rb") as opened:
        digest.update(opened.read(_ENDS))
        opened.seek(max(0, status.st_size - _ENDS))
        digest.update(opened.read(_ENDS))
    return digest.hexdigest()


def _mapped(file: Path) -> datasets.Dataset | None:
    """The table of a file; None where there is none, or one that is damaged."""
    import datasets
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as stream, pa.ipc.open_stream(stream) as reader:
            rows = (reader.schema.metadata or {}).get(_ROWS)
        found = datasets.Dataset.from_file(str(file))
    except (OSError, pa.ArrowInvalid):
        return None
    # a stream that is cut off between two batches looks like a shorter one
    return found if rows == str(len(found)).encode() else None


def _write(table: pa.Table, file: Path) -> None:
    import pyarrow as pa

    schema = table.schema.with_metadata({_ROWS: str(len(table)).encode()})
    with (
        whole_file(file) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        writer.write_table(table, max_chunksize=_ROWS_PER_BATCH)
