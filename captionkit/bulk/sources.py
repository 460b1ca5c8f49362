"""What a user names to be captioned, and the images that it stands for."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence

from captionkit.bulk.digests import DigestMap
from captionkit.bulk.folders import images_below
from captionkit.bulk.item import Item, digest, displayed
from captionkit.bulk.listings import (
    PARQUET_ENDINGS,
    TABLE_ENDINGS,
    images_in_list,
    images_in_parquet,
    images_in_table,
    name_of_url,
)
from captionkit.bulk.shards import (
    COMPRESSED_ENDINGS,
    TAR_ENDINGS,
    images_in_tar,
    refuse_compressed,
)
from captionkit.data.files import IMAGE_ENDINGS
from captionkit.data.images import is_url
from captionkit.errors import DataError

_FILES = (".txt", *TABLE_ENDINGS, *PARQUET_ENDINGS, *TAR_ENDINGS, *COMPRESSED_ENDINGS)


def find_images(
    sources: Sequence[str], image_column: str | None = None, contents: bool = True
) -> Iterator[Item]:
    """The images that folders, files, lists, tables, tar shards, globs and URLs stand for.

    Each once, however often it is named; in the order of the sources, and of names within a folder.
    contents: also read images that lie inside Parquet files; without, it is quick. Raises DataError
    for a source that is missing, empty, or not what its ending says.
    """
    named = [
        _images_of(source, image_column, contents)
        for source in sources
        if not _is_caption_file(source)
    ]
    if len(named) == 1 and os.path.isdir(sources[0]):
        yield from named[0]  # nothing occurs twice, so nothing has to be remembered
        return
    seen = DigestMap()
    for items in named:
        for item in items:
            known = digest(item.where)
            if known not in seen:
                seen.put(known)
                yield item


def check_sources(sources: Sequence[str]) -> None:
    """Raise DataError for a source that does not exist."""
    for source in sources:
        if not (is_url(source) or os.path.lexists(source) or glob.has_magic(source)):
            raise DataError(f"There is no file or folder {displayed(source)}.")


def folder_of(source: str) -> str:
    """The folder that a source is, or lies in."""
    if is_url(source):
        return os.getcwd()
    path = os.path.abspath(source)
    if not os.path.lexists(path) and glob.has_magic(source):
        path = _fixed_part(path)
    return path if os.path.isdir(path) else os.path.dirname(path)


def _images_of(source: str, image_column: str | None, contents: bool) -> Iterator[Item]:
    lowered = source.lower()
    if is_url(source):
        return iter([Item(source, name_of_url(source), source)])
    if os.path.isdir(source):
        return _not_empty(source, images_below(source))
    if not os.path.lexists(source) and glob.has_magic(source):
        return _matching(source, image_column, contents)
    if lowered.endswith(COMPRESSED_ENDINGS):
        refuse_compressed(source)
    if lowered.endswith(TAR_ENDINGS):
        return _not_empty(source, images_in_tar(source))
    if lowered.endswith(PARQUET_ENDINGS):
        return _not_empty(source, images_in_parquet(source, image_column, contents))
    if lowered.endswith(TABLE_ENDINGS):
        return _not_empty(source, images_in_table(source, image_column))
    if lowered.endswith(".txt"):
        return _not_empty(source, images_in_list(source))
    path = os.path.abspath(source)
    return iter([Item(path, os.path.basename(path), path)])


def _is_caption_file(source: str) -> bool:
    """Whether a .txt is no list but the caption of an image beside it, as `photos/*` brings in."""
    stem, ending = os.path.splitext(source)
    return ending.lower() == ".txt" and any(
        os.path.lexists(stem + image) for known in IMAGE_ENDINGS for image in (known, known.upper())
    )


def _not_empty(source: str, items: Iterator[Item]) -> Iterator[Item]:
    first = next(items, None)
    if first is None:
        shards = sorted(glob.glob(os.path.join(glob.escape(source), "*.tar")))
        hint = f" It has tar files: name them, {displayed(source)}/*.tar." if shards else ""
        endings = ", ".join(sorted(IMAGE_ENDINGS))
        raise DataError(f"There are no images ({endings}) in {displayed(source)}.{hint}")
    yield first
    yield from items


# ---- globs -------------------------------------------------------------------------------------


def _matching(pattern: str, image_column: str | None, contents: bool) -> Iterator[Item]:
    if "**" in pattern.split("/"):
        found = _matching_below(pattern)
    else:
        known = (*IMAGE_ENDINGS, *_FILES)
        found = (
            item
            for path in sorted(glob.glob(pattern))
            if os.path.isdir(path) or path.lower().endswith(known)
            if not _is_caption_file(path)
            for item in _images_of(path, image_column, contents)
        )
    first = next(found, None)
    if first is None:
        raise DataError(f"Nothing that can be captioned matches {displayed(pattern)}.")
    yield first
    yield from found


def _matching_below(pattern: str) -> Iterator[Item]:
    """The images that a pattern with ** matches; links may form loops, which glob would follow."""
    pattern = os.path.abspath(pattern)
    root = _fixed_part(pattern)
    wanted = pattern[len(root.rstrip("/")) + 1 :].split("/")
    return (
        item for item in images_below(root) if item.problem or _match(item.name.split("/"), wanted)
    )


def _match(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_match(parts[i:], wanted[1:]) for i in range(len(parts) + 1))
    return (
        bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _match(parts[1:], wanted[1:])
    )


def _fixed_part(pattern: str) -> str:
    """The folders before the first wildcard."""
    path = pattern
    while glob.has_magic(path):
        path = os.path.dirname(path)
    return path
