"""A folder of images, with everything in it that does not fit."""

from __future__ import annotations

import os
from pathlib import Path

from captionkit.data.files import IMAGE_ENDINGS, caption_lines
from captionkit.data.paths import is_unicode
from captionkit.data.shards import SPLIT_WORDS
from captionkit.data.tables import CSV_ENDINGS, JSON_ENDINGS
from captionkit.doctor.listing import SPLITS, Entry, Listing
from captionkit.doctor.rows import list_table
from captionkit.recipe import DataConfig

# pictures that no one looks for here; a camera's raw files among them
_OTHER_ENDINGS = {
    ".heic", ".heif", ".svg", ".jxl", ".jp2", ".j2k", ".psd", ".ico", ".tga", ".exr", ".hdr",
    ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".pdf", ".eps", ".apng", ".pnm",
}  # fmt: skip


def list_folder(config: DataConfig, splits: tuple[str, ...]) -> Listing:
    """All images of an image folder, in the splits that its subfolders make."""
    root = Path(str(config.data_dir)).absolute()
    listing = Listing(f"imagefolder {config.data_dir}", ids_are_paths=True)
    folders = _folders(root)
    for split in splits:
        if split in folders:
            _list_split(folders[split], split, config, listing)
    return listing


def _folders(root: Path) -> dict[str, Path]:
    there = {
        split: next((root / name for name in SPLIT_WORDS[split] if (root / name).is_dir()), None)
        for split in SPLITS
    }
    found = {split: folder for split, folder in there.items() if folder}
    return found or {"train": root}


def _list_split(folder: Path, split: str, config: DataConfig, listing: Listing) -> None:
    metadata = [folder / f"metadata{ending}" for ending in (*JSON_ENDINGS, *CSV_ENDINGS)]
    metadata = [file for file in metadata if file.is_file()]
    images, texts = _look_around(folder, split, listing)
    if len(metadata) > 1:
        names = " and ".join(file.name for file in metadata)
        listing.add("load", split, f"{folder} has {names}; keep one of them.")
    if metadata:
        list_table(metadata[0], folder, split, config, listing)
        listed = {entry.image_id for entry in listing.entries if entry.split == split}
        for image in images:
            if image not in listed:
                listing.add("unlisted", str(folder / image), f"not in {metadata[0].name}")
        return
    for image in images:
        text = os.path.splitext(image)[0] + ".txt"
        captions = _captions(folder / text, listing) if text in texts else ()
        listing.entries.append(Entry(split, image, captions, str(folder / image)))
    for text in sorted(texts - {os.path.splitext(image)[0] + ".txt" for image in images}):
        # a file that says what the folder is
        if os.path.basename(text).lower() not in ("readme.txt", "license.txt", "sources.txt"):
            listing.add("no_image", str(folder / text), "no image of this name beside it")


def _look_around(folder: Path, split: str, listing: Listing) -> tuple[list[str], set[str]]:
    """Images and .txt files below a folder, relative to it; what else there is becomes a case."""
    images: list[str] = []
    texts: set[str] = set()
    for place, folders, names in os.walk(folder):
        # hidden folders, and what macOS leaves in zip files
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        inside = os.path.relpath(place, folder)
        for name in folders:
            if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS:
                listing.add("not_a_file", os.path.join(place, name), "a folder")
        for name in names:
            path = name if inside == "." else f"{Path(inside).as_posix()}/{name}"
            ending = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if ending in IMAGE_ENDINGS:
                images.append(path)
                if not is_unicode(path):
                    listing.add("bad_name", os.path.join(place, name))
            elif ending == ".txt":
                texts.add(path)
            elif ending in _OTHER_ENDINGS:
                listing.add("other_format", os.path.join(place, name), ending)
    return sorted(images), texts


def _captions(file: Path, listing: Listing) -> tuple[str, ...]:
    try:
        content = file.read_bytes()
    except OSError as error:
        listing.add("load", str(file), f"Cannot read the captions: {error.strerror}.")
        return ()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        listing.add("bad_encoding", str(file))
        text = content.decode("utf-8-sig", "ignore")
    # a file without a word in it is an empty caption, not none
    return tuple(caption_lines(text)) or ("",)
