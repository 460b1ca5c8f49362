"""A dataset examined: images, captions, copies, splits."""

from __future__ import annotations

import statistics
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from captionkit.doctor.captions import check_captions
from captionkit.doctor.copies import find_copies
from captionkit.doctor.findings import Diagnosis, Item, in_order
from captionkit.doctor.images import ImageFacts, Limits, check_images
from captionkit.doctor.listing import Listing
from captionkit.doctor.sources import list_dataset
from captionkit.doctor.tokens import count_tokens
from captionkit.errors import ConfigError
from captionkit.recipe import field_names
from captionkit.settings import unknown_setting


def examine(
    dataset: Any = "",
    *,
    model: str | None = None,
    near_duplicates: bool = False,
    min_side: int = 32,
    max_pixels: int = 50_000_000,
    max_words: int = 100,
    threads: int | None = None,
    trust_remote_code: bool = False,
    progress: bool = False,
    **settings: Any,
) -> Diagnosis:
    """Look at every image and caption of a dataset, and go on past whatever is wrong.

    dataset: the name of a source, a folder, a csv or jsonl file, a hub id, or data in memory.
    settings: fields of `DataConfig`; with `split=` only that split is looked at.
    model: also count tokens with its tokenizer, against its limit.
    near_duplicates: also compare how pictures look.
    min_side, max_pixels, max_words: what counts as tiny, huge and long.
    threads: that decode images; default: one a core. progress: show a bar on a terminal.

    Raises ConfigError for settings that do not fit, DataError where there is nothing to examine.
    """
    return examined(
        dataset, settings, Limits(min_side, max_pixels, near_duplicates), model, max_words, threads,
        trust_remote_code, progress,
    )[0]  # fmt: skip


def examined(
    dataset: Any,
    settings: dict[str, Any],
    limits: Limits,
    model: str | None,
    max_words: int,
    threads: int | None,
    trust_remote_code: bool,
    progress: bool,
) -> tuple[Diagnosis, Listing]:
    """The diagnosis, and the listing that its items point into."""
    for name in settings:
        if name not in field_names("data"):
            raise unknown_setting(name, [*field_names("data"), "model", "near_duplicates"])
    if threads is not None and threads < 1:
        raise ConfigError(f"threads={threads} is not possible: it must be at least 1.")
    listing = list_dataset(dataset, settings)
    names = listing.names()
    facts = _looked_at(listing, limits, threads, progress)
    cases: dict[str, list[Item]] = {kind: list(items) for kind, items in listing.cases.items()}
    for i, fact in enumerate(facts):
        for kind, detail in fact.problems:
            cases.setdefault(kind, []).append(Item((names[i],), detail, (i,)))
    tokens = None
    found = [check_captions(listing.entries, names, max_words), find_copies(listing, facts, names)]
    if model is not None:
        tokens, by_tokens = count_tokens(model, listing.entries, names, trust_remote_code)
        found.append(by_tokens)
    for part in found:
        for kind, items in part.items():
            cases.setdefault(kind, []).extend(items)
    splits = {
        split: (
            sum(entry.split == split for entry in listing.entries),
            sum(len(entry.captions) for entry in listing.entries if entry.split == split),
        )
        for split in dict.fromkeys(entry.split for entry in listing.entries)
    }
    diagnosis = Diagnosis(
        listing.name, splits, in_order(cases), tokens, _pictures(facts), tuple(listing.remarks)
    )
    return diagnosis, listing


def _looked_at(
    listing: Listing, limits: Limits, threads: int | None, progress: bool
) -> list[ImageFacts]:
    from tqdm import tqdm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what is a finding here
        return list(
            tqdm(
                check_images(listing.entries, limits, threads),
                total=len(listing.entries),
                desc="looking at images",
                unit="image",
                dynamic_ncols=True,
                leave=False,
                disable=None if progress else True,  # None: unless it is a terminal
            )
        )


def _pictures(facts: Sequence[ImageFacts]) -> dict[str, str]:
    """Formats, modes and sizes of the images whose header could be read."""
    read = [fact for fact in facts if fact.size]
    if not read:
        return {}
    widths, heights = zip(*(fact.size for fact in read if fact.size), strict=True)
    by_pixels = sorted((fact.size for fact in read if fact.size), key=lambda s: s[0] * s[1])
    return {
        "formats": _tally(fact.format or "in memory" for fact in read),
        "modes": _tally(fact.mode for fact in read),
        "median size": f"{statistics.median(widths):,.0f} x {statistics.median(heights):,.0f}",
        "smallest": "{:,} x {:,}".format(*by_pixels[0]),
        "largest": "{:,} x {:,}".format(*by_pixels[-1]),
    }


def _tally(values: Any) -> str:
    return ", ".join(f"{value} {count:,}" for value, count in Counter(values).most_common())
