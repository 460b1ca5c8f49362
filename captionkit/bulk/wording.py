"""From what a model says to what is kept: prefix, suffix, trigger word, and an earlier caption."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from captionkit.errors import DataError

if TYPE_CHECKING:
    from captionkit.bulk.config import BulkConfig


def kept_caption(text: str, before: str | None, config: BulkConfig) -> str:
    """The caption to keep for an image: `text` is the model's, `before` the one that it has."""
    caption = f"{config.prefix}{one_line(text)}{config.suffix}"
    before = (before or "").strip()
    # in a file of several lines each is a caption, and so is the new one
    between = "\n" if "\n" in before else config.separator
    if before and config.existing == "append":
        caption = f"{before}{between}{caption}"
    elif before and config.existing == "prepend":
        caption = f"{caption}{between}{before}"
    if config.trigger and not _has_word(caption, config.trigger):
        caption = f"{config.trigger}{config.separator}{caption}"
    # what JSON or a command line brought in may have no form in UTF-8
    return caption.encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """A caption as one line of printable text that UTF-8 can hold."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(c if c >= " " and c != "\x7f" else " " for c in text).split())


def decoded(content: bytes) -> str:
    """The text of a caption file: UTF-8, or what its byte-order mark says. Raises DataError."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            "it is not UTF-8 text, so it is left as it is; convert it, or take it away"
        ) from None


def _has_word(caption: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption) is not None
