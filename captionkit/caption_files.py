"""Captioning files and folders from the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captionkit.data.images import is_url, open_image
from captionkit.errors import DataError, ImageError
from captionkit.types import Caption, Captioner

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def find_images(sources: Sequence[str]) -> list[str]:
    """The images that files, folders (searched, in order of their names) and URLs stand for."""
    found: list[str] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
            if not inside:
                raise DataError(f"There are no images ({', '.join(IMAGE_ENDINGS)}) in {path}.")
            found += map(str, inside)
        elif path.exists() or is_url(source):
            found.append(source)
        else:
            raise DataError(f"There is no file or folder {source}.")
    return found


def caption_files(
    captioner: Captioner,
    paths: Sequence[str],
    batch_size: int,
    on_bad_image: str,
    decoding: dict[str, Any],
) -> Iterator[tuple[str, Caption | ImageError]]:
    """Each path with its caption, in order; or, where skipped, with what is wrong with it."""
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        images: dict[str, Any] = {}
        broken: dict[str, ImageError] = {}
        for path in batch:
            try:
                images[path] = open_image(path, allow_urls=True)
            except ImageError as error:
                if on_bad_image == "stop":
                    raise
                broken[path] = error
        captions = iter(captioner.caption(list(images.values()), **decoding) if images else [])
        for path in batch:
            yield path, broken[path] if path in broken else next(captions)
