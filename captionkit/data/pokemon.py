"""Pokemon with captions by BLIP: the data of the Hugging Face captioning guide.

The original, 833 rows of `image` and `text`, was taken down after a DMCA notice. Copies come and
go, so the id is a setting, and a local folder always works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captionkit.data import parquet
from captionkit.data.dataset import CaptionDataset
from captionkit.data.files import load_imagefolder
from captionkit.data.hub import choose_split, load_from_hub
from captionkit.data.paths import data_folder
from captionkit.data.shards import holds_shards
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


def _load_local(config: DataConfig, split: str) -> Any:
    """A folder that `save_to_disk` wrote, one of Parquet files, or an image folder."""
    import datasets

    folder = data_folder(config.data_dir, "pokemon-blip")
    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        shards = holds_shards(folder, parquet.ENDINGS)
        return parquet.load(config, split) if shards else load_imagefolder(config, split)
    try:
        splits = datasets.load_from_disk(str(folder))
    except Exception as error:  # of datasets, pyarrow, json: a damaged copy
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"The Arrow copy in {folder} cannot be read: {reason}") from None
    return choose_split(splits, split, config, f"pokemon-blip {folder}", [folder])
