"""Captioning files and folders from the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captionkit.data.files import IMAGE_ENDINGS
from captionkit.data.images import is_url, open_image
from captionkit.errors import DataError, ImageError
from captionkit.types import Caption, Captioner


def find_images(sources: Sequence[str]) -> list[str]:
    """The images that files, folders (searched, in order of their names) and URLs stand for.

    Each once, however often it is named.
    """
    found: list[str] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
            if not inside:
                raise DataError(
                    f"There are no images ({', '.join(sorted(IMAGE_ENDINGS))}) in {path}."
                )
            found += map(str, inside)
        elif path.exists() or is_url(source):
            found.append(source)
        else:
            raise DataError(f"There is no file or folder {source}.")
    return list(dict.fromkeys(found))


def caption_files(
    captioner: Captioner,
    paths: Sequence[str],
    batch_size: int,
    on_bad_image: str,
    decoding: dict[str, Any],
) -> Iterator[tuple[str, list[Caption] | ImageError]]:
    """Each path with its captions, best first; or, where skipped, with what is wrong with it."""
    count = decoding.get("num_return_sequences", 1)
    for start in range(0, len(paths), batch_size):
        images: list[Any] = []
        errors: dict[str, ImageError] = {}
        batch = paths[start : start + batch_size]
        for path in batch:
            try:
                images.append(open_image(path, allow_urls=True))
            except ImageError as error:
                if on_bad_image == "stop":
                    raise
                errors[path] = error
        captions = captioner.caption(images, **{**decoding, "num_return_sequences": count})
        groups = iter([captions[i : i + count] for i in range(0, len(captions), count)])
        for path in batch:
            yield path, errors[path] if path in errors else next(groups)
