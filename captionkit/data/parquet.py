"""Parquet files: shards with a column of images and one of captions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data.dataset import CaptionDataset
from captionkit.data.shards import shard_files
from captionkit.errors import DataError, first_line

if TYPE_CHECKING:
    from captionkit.data.streaming import StreamedDataset
    from captionkit.recipe import DataConfig

ENDINGS = (".parquet",)


def load(config: DataConfig, split: str) -> CaptionDataset | StreamedDataset | None:
    """Parquet files (`train_file`, `data_dir`) with images as bytes or paths, and captions.

    `datasets` makes them Arrow files in its cache, once, which are then memory-mapped; images stay
    encoded as they are. Relative paths start in the folder of the files.
    """
    files = shard_files(config, split, "parquet", ENDINGS)
    if files is None:
        return None
    folder = Path(config.data_dir).absolute() if config.data_dir else files[0].parent
    where = files[0] if len(files) == 1 else files[0].parent
    name = f"parquet {where}"
    rows = read_parquet(files, config.streaming)
    if config.streaming:
        from captionkit.data.streaming import StreamedDataset

        return StreamedDataset.from_hf(rows, name, config, folder)
    return CaptionDataset.from_hf(
        rows, name, config.image_column, config.caption_column, [folder],
        config.allow_outside_paths, config.allow_urls,
    )  # fmt: skip


def read_parquet(files: list[Path], streaming: bool = False) -> Any:
    """The files as one `datasets.Dataset` (or `IterableDataset`). Raises DataError."""
    import datasets

    filled = [file for file in files if _rows(file)]
    if not filled:
        raise DataError(f"{files[0]} is empty: there is no image with captions in it.")
    paths = [str(file) for file in filled]
    try:
        return datasets.load_dataset(
            "parquet", data_files={"train": paths}, split="train", streaming=streaming
        )
    except Exception as error:  # of datasets, pyarrow, fsspec: columns that do not go together, ...
        cause = error.__cause__ or error
        raise DataError(
            f"The Parquet files {paths[0]}{', ...' if len(paths) > 1 else ''} cannot be read: "
            f"{first_line(cause)}"
        ) from None


def _rows(file: Path) -> int:
    """How many rows a file has; says more plainly than its reader what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open("rb") as opened:
            start = opened.read(4)
            size = opened.seek(0, 2)
            opened.seek(max(0, size - 4))
            end = opened.read(4)
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror or error}.") from None
    if start != b"PAR1":
        hint = " It is a pointer of Git LFS: fetch the file itself." if start == b"vers" else ""
        raise DataError(f"{file} is not a Parquet file ({size:,} bytes).{hint}")
    if end != b"PAR1":
        raise DataError(f"{file} was cut off: it has {size:,} bytes and no end. Fetch it again.")
    try:
        return pq.read_metadata(file).num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {first_line(error)}") from None
