"""Captions on standard output, as they come: nothing is kept, so nothing is resumed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from captionkit.bulk.config import BulkConfig
from captionkit.bulk.item import Item, displayed, key_of
from captionkit.bulk.pipeline import caption_items
from captionkit.bulk.rows import caption_row
from captionkit.bulk.wording import kept_caption, one_line
from captionkit.errors import DataError, ImageError
from captionkit.printable import printable
from captionkit.types import Caption


def print_captions(
    captioner: Any, items: Iterable[Item], config: BulkConfig, decoding: Mapping[str, Any]
) -> None:
    """Print a line an image: "path: caption", with alternatives in lines of their own; or JSON.

    Images that cannot be read are named on standard error. Raises `ImageError` for the first of
    them under on_bad_image="stop", and `DataError` where there was no other image.
    """
    here = os.getcwd()
    if config.token_probabilities:
        decoding = {**decoding, "token_probabilities": True}
    captioned, skipped = 0, 0
    for batch in caption_items(
        captioner, items, config.batch_size, decoding, config.seed, config.workers
    ):
        for item, outcome in batch:
            if not isinstance(outcome, ImageError):
                captioned += 1
                for line in _lines(key_of(item, here), outcome, config):
                    print(line, flush=True)
                continue
            if config.on_bad_image == "stop":
                raise ImageError(
                    f"Cannot caption {displayed(item.where)}: {outcome}. --on-bad-image skip goes "
                    "on without such images."
                )
            skipped += 1
            reason = printable(str(outcome))
            print(f"captionkit: skipped: {displayed(item.where)}: {reason}", file=sys.stderr)
    if not captioned:
        raise DataError(f"None of the {skipped:,} images could be captioned.")
    if skipped:
        total = captioned + skipped
        print(f"captionkit: {skipped:,} of {total:,} images skipped", file=sys.stderr)


def _lines(key: str, captions: list[Caption], config: BulkConfig) -> list[str]:
    text = kept_caption(captions[0].text, None, config)
    if config.kind == "jsonl":
        line = json.dumps(caption_row(key, captions, text, None), ensure_ascii=False)
        return [line.encode("utf-8", "backslashreplace").decode()]
    texts = [text, *(one_line(other.text) for other in captions[1:])]
    return [f"{displayed(key)}: {printable(text)}" for text in texts]
