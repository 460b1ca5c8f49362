"""Which columns of a table hold the images and the captions."""

from __future__ import annotations

from collections.abc import Sequence

from captionkit.errors import DataError
from captionkit.settings import nearest

IMAGE_COLUMNS = ("image", "image_path", "file_name", "path", "filepath", "filename", "url")
CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences", "caption_text")


def image_column(available: Sequence[str], chosen: str | None, where: str) -> str:
    """The column with the images: the chosen one, or the first conventional one."""
    return _column(available, chosen, IMAGE_COLUMNS, "image", where)


def caption_column(available: Sequence[str], chosen: str | None, where: str) -> str:
    """The column with the captions: the chosen one, or the first conventional one."""
    return _column(available, chosen, CAPTION_COLUMNS, "caption", where)


def _column(
    available: Sequence[str], chosen: str | None, usual: Sequence[str], kind: str, where: str
) -> str:
    there = ", ".join(str(name) for name in available) or "none"
    if chosen is not None:
        if chosen in available:
            return chosen
        raise DataError(
            f"{where} has no column {chosen!r}{nearest(chosen, available)} Columns: {there}. "
            f"The setting is {kind}_column."
        )
    for name in usual:
        if name in available:
            return name
    raise DataError(
        f"{where} has no {kind} column under a usual name ({', '.join(usual)}). "
        f"Columns: {there}. Say which one it is with {kind}_column."
    )
