"""COCO's own layout, with everything in it that does not fit."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from captionkit.data.files import IMAGE_ENDINGS
from captionkit.doctor.listing import Entry, Listing
from captionkit.errors import DataError
from captionkit.recipe import DataConfig

_PARTS = {"train": "train", "validation": "val"}


def list_coco(config: DataConfig, splits: tuple[str, ...]) -> Listing | None:
    """The images of unpacked COCO annotations; None for its other forms (zips, Karpathy, ...)."""
    folder = Path(str(config.data_dir)).absolute()
    found = (folder / "annotations").glob("captions_*.json")
    matches = [re.fullmatch(r"captions_(train|val)(2014|2017)\.json", file.name) for file in found]
    years = {match[2] for match in matches if match}
    if config.dataset_config is not None:
        years &= {config.dataset_config}
    if len(years) != 1:
        return None
    (year,) = years
    listing = Listing(f"coco {config.data_dir}")
    for split in splits:
        part = f"{_PARTS[split]}{year}" if split in _PARTS else ""
        file = folder / "annotations" / f"captions_{part}.json"
        if not file.is_file():
            continue
        if not (folder / part).is_dir():
            return None  # the pictures are in a zip, or elsewhere
        _list_split(file, folder / part, split, listing)
    return listing


def _list_split(file: Path, folder: Path, split: str, listing: Listing) -> None:
    content = _content(file)
    names: dict[Any, str] = {}
    captions: dict[Any, list[str]] = {}
    for number, image in enumerate(content["images"]):
        where = f"{file}, image {number}"
        image_id, name = (
            (image.get("id"), image.get("file_name")) if isinstance(image, dict) else (None, None)
        )
        if not isinstance(image_id, (int, str)) or not isinstance(name, str) or not name:
            listing.add("bad_row", where, f"expected id and file_name, found {image!r:.80}")
        elif image_id in names:
            listing.add("bad_row", where, f"the id {image_id} a second time")
        elif Path(name).name != name or name in (".", ".."):
            listing.add("outside", where, name)
        else:
            names[image_id], captions[image_id] = name, []
    for number, annotation in enumerate(content["annotations"]):
        where = f"{file}, annotation {number}"
        image_id, text = (
            (annotation.get("image_id"), annotation.get("caption"))
            if isinstance(annotation, dict)
            else (None, None)
        )
        if not isinstance(image_id, (int, str)) or not isinstance(text, str):
            listing.add(
                "bad_row", where, f"expected image_id and caption, found {annotation!r:.80}"
            )
        elif image_id not in names:
            listing.add("no_image", where, f"of image {image_id}, which the file does not list")
        else:
            captions[image_id].append(text.strip())
    listing.entries += [
        Entry(split, str(image_id), tuple(captions[image_id]), str(folder / name))
        for image_id, name in names.items()
    ]
    for name in sorted(set(os.listdir(folder)) - set(names.values())):
        if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS:
            listing.add("unlisted", str(folder / name), f"not in {file.name}")


def _content(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    lists = [content.get(key) if isinstance(content, dict) else None for key in _KEYS]
    if not all(isinstance(found, list) for found in lists):
        raise DataError(
            f'{file} is not in COCO\'s caption format: expected the lists "images" and '
            '"annotations".'
        )
    return content


_KEYS = ("images", "annotations")
