"""Pokemon with captions by BLIP: the data of the Hugging Face captioning guide.

The original, 833 rows of `image` and `text`, was taken down after a DMCA notice. Copies come and
go, so the id is a setting, and a local folder always works.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data.dataset import CaptionDataset
from captionkit.data.files import load_imagefolder
from captionkit.data.hub import choose_split, load_from_hub
from captionkit.errors import DataError, HubError

if TYPE_CHECKING:
    from captionkit.recipe import DataConfig

DATASET_ID = "lambdalabs/pokemon-blip-captions"


def load(config: DataConfig, split: str) -> CaptionDataset | None:
    """The guide's Pokemon: a copy on the Hub (`dataset_id`) or a local one (`data_dir`)."""
    if config.data_dir is not None:
        return _load_local(config, split)
    dataset_id = config.dataset_id or DATASET_ID
    try:
        splits = load_from_hub(dataset_id, config.dataset_config)
    except HubError as error:
        raise HubError(
            f"{error} The original, {DATASET_ID}, was taken down after a DMCA notice, and copies "
            "come and go. Ways out: --dataset-id of another copy; --data-dir of a local one (an "
            "image folder, Arrow or Parquet, with image and text); or --dataset critters, our own "
            "creatures in the same manner."
        ) from None
    return choose_split(splits, split, config, dataset_id)


def _load_local(config: DataConfig, split: str) -> CaptionDataset | None:
    """A folder that `save_to_disk` wrote, one of Parquet files, or an image folder."""
    import datasets

    folder = Path(str(config.data_dir))
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"data_dir={config.data_dir!r} {what}.")
    arrow = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    parquet = _parquet_files(folder)
    if not (arrow or parquet):
        return load_imagefolder(config, split)
    try:
        if arrow:
            splits = datasets.load_from_disk(str(folder))
        else:
            splits = datasets.load_dataset("parquet", data_files=parquet)
    except Exception as error:  # of datasets, pyarrow, json: a damaged copy
        kind = "Arrow" if arrow else "Parquet"
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"The {kind} copy in {folder} cannot be read: {reason}") from None
    return choose_split(splits, split, config, f"pokemon-blip {folder}")


def _parquet_files(folder: Path) -> dict[str, Any]:
    """Files by split, from their names: train-00000-of-00001.parquet; any other is "train"."""
    files: dict[str, list[str]] = {}
    for path in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]):
        word = path.stem.split("-")[0]
        split = word if word in ("train", "validation", "test") else "train"
        files.setdefault(split, []).append(str(path))
    return files
