"""Flickr8k and Flickr30k in the layouts that they are passed on in.

Captions: the original token file (`name.jpg#0<tab>caption`), Kaggle's captions.txt
(`name.jpg,caption`) or results.csv (`name.jpg| 0| caption`), or Karpathy's JSON, which has the
splits as well. Splits otherwise: the original lists of image names.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.data.arrow import listed
from captionkit.data.dataset import CaptionDataset
from captionkit.data.files import IMAGE_ENDINGS, check_present
from captionkit.data.paths import data_folder
from captionkit.data.tables import read_text
from captionkit.errors import DataError

if TYPE_CHECKING:
    from captionkit.recipe import DataConfig

Captions = dict[str, list[str]]  # by file name


@dataclass(frozen=True)
class _Layout:
    karpathy: str
    captions: tuple[str, ...]
    lists: dict[str, tuple[str, ...]]
    images: tuple[str, ...]


_PLACES = ("", "Flickr8k_text", "annotations", "captions", "text")
_LAYOUTS = {
    "flickr8k": _Layout(
        "dataset_flickr8k.json",
        ("Flickr8k.token.txt", "captions.txt"),
        {
            "train": ("Flickr_8k.trainImages.txt",),
            "validation": ("Flickr_8k.devImages.txt",),
            "test": ("Flickr_8k.testImages.txt",),
        },
        # the first is how the original spells it
        ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images"),
    ),
    "flickr30k": _Layout(
        "dataset_flickr30k.json",
        ("results_20130124.token", "results.csv", "captions.txt"),
        {"train": ("train.txt",), "validation": ("val.txt",), "test": ("test.txt",)},
        ("flickr30k-images", "flickr30k_images", "Images", "images"),
    ),
}
_KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "validation", "test": "test"}
_TOKEN = re.compile(r"(?P<name>[^\t#]+)#\d+\t(?P<text>.*)")
_BARS = re.compile(r"(?P<name>[^|]+)\|\s*\d+\s*\|?(?P<text>.*)")  # a row of the original lacks one
_COMMA = re.compile(r"(?P<name>[^,]+),(?P<text>.*)")


def load_flickr8k(config: DataConfig, split: str) -> CaptionDataset | None:
    """Flickr8k from `data_dir`: 8,000 photos, five captions each; original, Kaggle or Karpathy."""
    return _load("flickr8k", config, split)


def load_flickr30k(config: DataConfig, split: str) -> CaptionDataset | None:
    """Flickr30k from `data_dir`: 31,000 photos, five captions each; original, Kaggle, Karpathy."""
    return _load("flickr30k", config, split)


def flickr_name(folder: Path) -> str | None:
    """Which of the two a folder holds, by the names of its files; None for neither."""
    for name, layout in _LAYOUTS.items():
        own = [file for file in layout.captions if file != "captions.txt"]
        if _find(folder, (layout.karpathy, *own)):
            return name
    return None


def _load(source: str, config: DataConfig, split: str) -> CaptionDataset | None:
    layout, folder = _LAYOUTS[source], data_folder(config.data_dir, source)
    karpathy = _find(folder, (layout.karpathy,))
    if karpathy:
        captions = _from_karpathy(karpathy, split)
    else:
        file = _find(folder, layout.captions)
        if file is None:
            raise DataError(
                f"{folder} has no captions of {source}: expected one of "
                f"{', '.join((layout.karpathy, *layout.captions))} in it."
            )
        captions = _of_split(_captions(file), folder, layout, split, file)
    if not captions:
        return None
    images = _image_folder(folder, layout, captions)
    name = f"{source} {split}"
    check_present(captions, images, name, config, "Unpack the images there.")
    rows = (
        {"image": str(images / file_name), "captions": texts, "image_id": file_name}
        for file_name, texts in captions.items()
    )
    return CaptionDataset.from_rows(rows, name)


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    paths = (folder / place / name for name in names for place in _PLACES)
    return next((path for path in paths if path.is_file()), None)


# ---- captions ----------------------------------------------------------------------------------


def _captions(file: Path) -> Captions:
    """Every line of a caption file. Raises DataError for one that is in no known form."""
    captions: Captions = {}
    lines = _lines(file)
    header = next(lines, (0, ""))
    form = _BARS if "|" in header[1] else _COMMA
    if "#" in header[1].partition("\t")[0]:
        form = _TOKEN
    if header[1].replace(" ", "") not in ("image,caption", "image_name|comment_number|comment"):
        lines = _lines(file)
    for number, line in lines:
        match = form.fullmatch(line)
        if match is None:
            example = {_TOKEN: "a.jpg#0<tab>a dog", _BARS: "a.jpg| 0| a dog", _COMMA: "a.jpg,a dog"}
            raise DataError(
                f"{file}, line {number}: expected a line such as {example[form]!r}, "
                f"found {line!r:.80}."
            )
        text = match["text"].strip()
        if form is _COMMA and len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('""', '"').strip()
        captions.setdefault(_plain(match["name"].strip(), file), []).append(text)
    return captions


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def _plain(name: str, file: Path) -> str:
    if Path(name).name != name or "\\" in name or name in ("", ".", ".."):
        raise DataError(f"{file}: the file name {name!r} leads out of the image folder.")
    return name


def _from_karpathy(file: Path, split: str) -> Captions:
    try:
        content = json.loads(read_text(file))
        found = {
            _plain(image["filename"], file): [s["raw"].strip() for s in image["sentences"]]
            for image in content["images"]
            if _KARPATHY_SPLITS.get(image["split"], image["split"]) == split
        }
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({error}).") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is not in Karpathy's format ({type(error).__name__}: {error}): expected "
            '"images" with filename, split, and sentences with raw.'
        ) from None
    return found


# ---- splits and images -------------------------------------------------------------------------


def _of_split(
    captions: Captions, folder: Path, layout: _Layout, split: str, file: Path
) -> Captions:
    lists = {name: path for name, names in layout.lists.items() if (path := _find(folder, names))}
    if not lists:
        return _without_strangers(captions, file) if split == "train" else {}
    if split not in lists:
        if split != "train":
            return {}
        there = ", ".join(path.name for path in lists.values())
        raise DataError(f"{folder} has {there}, but no {layout.lists['train'][0]} beside it.")
    names = [line.strip() for _, line in _lines(lists[split])]
    # the lists of Flickr30k have no endings
    names = [name if name in captions else f"{name}.jpg" for name in names]
    unknown = [name for name in names if name not in captions]
    if unknown:
        raise DataError(f"{lists[split]} names images that {file} has not: {listed(unknown)}.")
    return {name: captions[name] for name in names}


def _without_strangers(captions: Captions, file: Path) -> Captions:
    """Flickr8k's token file has five captions of a name that no image has, 2258...jpg.1."""
    strange = [name for name in captions if Path(name).suffix.lower() not in IMAGE_ENDINGS]
    if strange:
        warnings.warn(f"{file}: names that are no image's, left out: {listed(strange)}.",
                      stacklevel=2)  # fmt: skip
    return {name: texts for name, texts in captions.items() if name not in strange}


def _image_folder(folder: Path, layout: _Layout, captions: Captions) -> Path:
    # some zip files have a folder of the same name inside
    places = [folder / name for name in layout.images]
    places += [folder / name / name for name in layout.images] + [folder]
    some = list(captions)[:20]
    for place in places:
        if any((place / name).is_file() for name in some):
            return place
    there = [place for place in places[:-1] if place.is_dir()]
    if there:
        return there[0]
    raise DataError(
        f"{folder} has no images: expected them in {', '.join(layout.images)}, or beside the "
        "captions."
    )
