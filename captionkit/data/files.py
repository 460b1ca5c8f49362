"""Images on disk: a folder with metadata or .txt files, or a csv or jsonl file that lists them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data import columns
from captionkit.data.arrow import NO_URLS, listed
from captionkit.data.dataset import CaptionDataset
from captionkit.data.fetch import is_url
from captionkit.data.paths import below, data_folder, exists, outside, spellings
from captionkit.data.shards import SPLIT_WORDS
from captionkit.data.tables import CSV_ENDINGS, JSON_ENDINGS, read_rows
from captionkit.errors import DataError

if TYPE_CHECKING:
    from captionkit.recipe import DataConfig

IMAGE_ENDINGS = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif",
    ".ppm", ".pgm",
}  # fmt: skip


def load_imagefolder(config: DataConfig, split: str) -> CaptionDataset | None:
    """A folder of images with metadata.jsonl or .csv, or a .txt file of captions beside each.

    Subfolders train, validation (or val) and test are the splits; without any, the folder is
    "train".
    """
    root = data_folder(config.data_dir, "imagefolder")
    folder = _split_folder(root, split)
    if folder is None:
        return None
    name = f"imagefolder {folder}"
    metadata = [folder / f"metadata{ending}" for ending in (*JSON_ENDINGS, *CSV_ENDINGS)]
    metadata = [file for file in metadata if file.is_file()]
    if len(metadata) > 1:
        raise DataError(
            f"{folder} has {' and '.join(file.name for file in metadata)}; keep one of them."
        )
    images = _images_below(folder)
    if metadata:
        captions = _captions_by_image(metadata[0], folder, config)
        _warn_of_unlisted(images, captions, folder, metadata[0])
    else:
        captions = _captions_beside(images, folder)
    return _dataset(captions, folder, name, config)


def load_jsonl(config: DataConfig, split: str) -> CaptionDataset | None:
    """JSON lines with an image path and a caption (or several) in each: `train_file`, ..."""
    return _load_table(config, split, "jsonl", JSON_ENDINGS)


def load_csv(config: DataConfig, split: str) -> CaptionDataset | None:
    """A csv file with columns for image paths and captions: `train_file`, `validation_file`, ..."""
    return _load_table(config, split, "csv", CSV_ENDINGS)


def _load_table(
    config: DataConfig, split: str, source: str, endings: tuple[str, ...]
) -> CaptionDataset | None:
    given = {
        "train": config.train_file,
        "validation": config.validation_file,
        "test": config.test_file,
    }
    if given.get(split) is None:
        if split == "train":
            raise DataError(f"The dataset {source!r} needs train_file, the path of its file.")
        return None
    file = Path(str(given[split]))
    if file.suffix.lower() not in endings:
        raise DataError(
            f"{split}_file={str(file)!r} does not end in {' or '.join(endings)}, as the dataset "
            f"{source!r} expects."
        )
    folder = data_folder(config.data_dir, source) if config.data_dir else file.absolute().parent
    captions = _captions_by_image(file, folder, config)
    return _dataset(captions, folder, f"{source} {file}", config)


# ---- folders -----------------------------------------------------------------------------------


def _split_folder(root: Path, split: str) -> Path | None:
    there = {
        name: root / folder
        for name, folders in reversed(SPLIT_WORDS.items())
        for folder in reversed(folders)
        if (root / folder).is_dir()
    }
    if split in there:
        return there[split]
    if split != "train":
        return None
    if there:
        found = ", ".join(folder.name for folder in there.values())
        raise DataError(f"{root} has {found} but no train folder beside it.")
    return root


def _images_below(folder: Path) -> list[str]:
    """Paths of all images below a folder, relative to it, with forward slashes, sorted."""
    found = []
    for place, folders, names in os.walk(folder):
        # hidden folders, and what macOS leaves in zip files
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
        inside = Path(place).relative_to(folder)
        found += [
            (inside / name).as_posix()
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_ENDINGS
        ]
    return sorted(found)


def caption_lines(text: str) -> list[str]:
    """The captions of a text file: its lines that are not blank, without the spaces around them."""
    # not splitlines(): a caption may hold any other of Unicode's line ends
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.strip() for line in lines if line.strip()]


def _captions_beside(images: list[str], folder: Path) -> dict[str, list[str]]:
    """Every line of a.txt that is not blank is a caption of a.jpg."""
    captions, without = {}, []
    for image in images:
        file = (folder / image).with_suffix(".txt")
        try:
            captions[image] = caption_lines(file.read_text(encoding="utf-8-sig")) or [""]
        except FileNotFoundError:
            without.append(image)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Cannot read the captions in {file}: {error}") from None
    if not images:
        raise DataError(f"There are no images in {folder}.")
    if not captions:
        raise DataError(
            f"{folder} has {len(images)} images but no captions. Expected a metadata.jsonl or "
            "metadata.csv in it with the columns file_name and caption, or a .txt file beside "
            f"each image (for example {Path(images[0]).with_suffix('.txt')})."
        )
    if without:
        raise DataError(
            f"Images in {folder} without a .txt file of captions: {listed(without)}. "
            "Write them or take the images out."
        )
    return captions


def _warn_of_unlisted(
    images: list[str], captions: Iterable[str], folder: Path, metadata: Path
) -> None:
    unlisted = sorted(set(images) - set(captions))
    if unlisted:
        warnings.warn(
            f"Images in {folder} that {metadata.name} does not list are not used: "
            f"{listed(unlisted)}.",
            stacklevel=2,
        )


# ---- tables ------------------------------------------------------------------------------------


def _captions_by_image(file: Path, folder: Path, config: DataConfig) -> dict[str, list[str]]:
    """Captions by image path relative to `folder`; rows that repeat an image are taken together."""
    captions: dict[str, list[str]] = {}
    image_column = caption_column = None
    roots = spellings(folder)
    for line, row in read_rows(file):
        if image_column is None or caption_column is None:
            image_column = columns.image_column(list(row), config.image_column, str(file))
            caption_column = columns.caption_column(list(row), config.caption_column, str(file))
        where = f"{file}, line {line}"
        for column in (image_column, caption_column):
            if row.get(column) is None:
                raise DataError(f"{where}: there is no {column!r}.")
        path = _inside(row[image_column], roots, where, config)
        given = row[caption_column]
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list) or not all(isinstance(caption, str) for caption in given):
            raise DataError(
                f"{where}: {caption_column!r} should be text or a list of text, "
                f"found {given!r:.80}."
            )
        captions.setdefault(path, []).extend(caption.strip() for caption in given)
    return captions


def _inside(value: Any, roots: Sequence[str], where: str, config: DataConfig) -> str:
    """An image path as it is relative to the data folder, or a URL, if those are allowed."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise DataError(f"{where}: expected the path of an image, found {value!r:.80}.")
    if is_url(value):
        if not config.allow_urls:
            raise DataError(f"{where}: {value} is a URL; {NO_URLS}")
        return value
    path = below(value, roots)
    if path is not None:
        return path
    if not config.allow_outside_paths:
        raise outside(value, roots[0], where)
    return Path(os.path.abspath(os.path.join(roots[0], value))).as_posix()


# ---- the dataset -------------------------------------------------------------------------------


def _dataset(
    captions: dict[str, list[str]], folder: Path, name: str, config: DataConfig
) -> CaptionDataset:
    check_present((path for path in captions if not is_url(path)), folder, name, config)
    return CaptionDataset.from_rows(_rows(captions, folder), name, allow_urls=config.allow_urls)


def _rows(captions: dict[str, list[str]], folder: Path) -> Iterator[dict[str, Any]]:
    for path, texts in captions.items():
        image = path if is_url(path) else str(folder / path)
        yield {"image": image, "captions": texts, "image_id": path}


def check_present(
    paths: Iterable[str], folder: Path, name: str, config: DataConfig, hint: str = ""
) -> None:
    """Raise DataError for image files that are not there, with their number and first names.

    Under `on_bad_image="skip"` that is an error only where none is there: the reader lists the
    rest.
    """
    paths = list(paths)
    listings: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        place, _, file_name = path.rpartition("/")
        if place not in listings:
            listings[place] = _listing(folder / place)
        # the file system may ignore case, or spell accents otherwise than the metadata
        if file_name not in listings[place] and not exists(folder / path):
            missing.append(path)
    if missing and (config.on_bad_image == "stop" or len(missing) == len(paths)):
        raise DataError(
            f"{name}: of {len(paths):,} images these are not below {folder}: {listed(missing)}. "
            f"{hint or 'Relative paths start there; set data_dir if they start elsewhere.'}"
            + ("" if len(missing) == len(paths) else " on_bad_image=skip goes on without them.")
        )


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
