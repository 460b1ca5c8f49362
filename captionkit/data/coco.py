"""COCO captions in the official layout of 2014 and 2017 (https://cocodataset.org/#format-data).

data_dir/annotations/captions_train2017.json    data_dir/train2017/000000000009.jpg
data_dir/annotations/captions_val2017.json      data_dir/val2017/000000000139.jpg
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data.arrow import listed
from captionkit.data.dataset import CaptionDataset
from captionkit.data.files import check_present
from captionkit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from captionkit.recipe import DataConfig

_SPLITS = {"train": "train", "validation": "val", "val": "val"}


def load(config: DataConfig, split: str) -> CaptionDataset | None:
    """COCO captions from `data_dir`, several to an image; `dataset_config` is 2014 or 2017."""
    folder, year = _folder(config), _year(config)
    part = f"{_SPLITS[split]}{year}" if split in _SPLITS else ""
    file = folder / "annotations" / f"captions_{part}.json"
    if not part or not file.is_file():
        if split == "train":
            raise DataError(
                f"{file} is missing. Unpack COCO's annotations_trainval{year}.zip in {folder}."
            )
        return None
    captions = _captions_by_file(file)
    name = f"coco {part}"
    images = folder / part
    hint = f"Unpack COCO's {part}.zip in {folder}."
    check_present([file_name for file_name, _ in captions], images, name, config, hint)
    return CaptionDataset.from_rows(_rows(captions, images), name)


def is_coco(folder: Path) -> bool:
    """Whether a folder has COCO's caption annotations in it."""
    return bool(_years(folder))


def _folder(config: DataConfig) -> Path:
    if config.data_dir is None:
        raise DataError(
            "The dataset 'coco' needs data_dir, the folder with COCO's annotations and images."
        )
    folder = Path(config.data_dir).absolute()
    if not (folder / "annotations").is_dir():
        raise DataError(
            f"{folder} has no folder annotations. Expected COCO's own layout: "
            "annotations/captions_train2017.json and the images in train2017 and val2017."
        )
    return folder


def _year(config: DataConfig) -> str:
    folder = _folder(config)
    years = _years(folder)
    if config.dataset_config is not None:
        if config.dataset_config not in ("2014", "2017"):
            raise ConfigError(
                f"dataset_config={config.dataset_config!r} is not a year of COCO: 2014 or 2017."
            )
        return config.dataset_config
    if not years:
        raise DataError(f"{folder / 'annotations'} holds no captions_train or captions_val file.")
    if len(years) > 1:
        raise DataError(
            f"{folder} has the captions of {' and '.join(years)}: choose one with dataset_config."
        )
    return years[0]


def _years(folder: Path) -> list[str]:
    found = (folder / "annotations").glob("captions_*.json")
    matches = (re.fullmatch(r"captions_(?:train|val)(2014|2017)\.json", f.name) for f in found)
    return sorted({match[1] for match in matches if match})


def _captions_by_file(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """(file name, {image_id, captions}) in the order of the file's images."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    try:
        rows = {
            image["id"]: (_plain_name(image["file_name"], file), {"image_id": image["id"]})
            for image in content["images"]
        }
        captions: dict[Any, list[str]] = {image_id: [] for image_id in rows}
        strangers = []
        for annotation in content["annotations"]:
            if annotation["image_id"] not in captions:
                strangers.append(annotation["image_id"])
                continue
            captions[annotation["image_id"]].append(annotation["caption"].strip())
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is not in COCO's caption format ({type(error).__name__}: {error}): expected "
            '"images" with id and file_name, and "annotations" with image_id and caption.'
        ) from None
    if len(rows) < len(content["images"]):
        raise DataError(f"{file} lists images with the same id.")
    if strangers:
        raise DataError(f"{file} has captions of images that it does not list: {listed(strangers)}")
    return [(name, {**row, "captions": captions[row["image_id"]]}) for name, row in rows.values()]


def _plain_name(file_name: str, file: Path) -> str:
    if Path(file_name).name != file_name or file_name in ("", ".", ".."):
        raise DataError(f"{file}: the file name {file_name!r} leads out of the image folder.")
    return file_name


def _rows(captions: list[tuple[str, dict[str, Any]]], images: Path) -> Iterator[dict[str, Any]]:
    for file_name, row in captions:
        yield {**row, "image": str(images / file_name)}
