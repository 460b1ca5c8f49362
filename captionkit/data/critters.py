"""critters: 833 small creatures, drawn by our own code, each with five captions. Public domain.

A data set that is always at hand: nothing is downloaded, and every attribute of a picture is known,
so that a caption can be judged right or wrong, not only near or far.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from captionkit.data.critters_draw import draw
from captionkit.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.recipe import DataConfig

VERSION = 2
"""Counts up with every change of pictures, captions or split; cached files are keyed by it."""

_COLOURS = ("orange", "yellow", "green", "blue", "purple", "pink")
ATTRIBUTES = {
    "colour": _COLOURS,
    "belly": _COLOURS,
    "shape": ("chubby", "tall", "square"),
    "ears": ("round", "pointy", "long", "floppy"),
    "eyes": ("big", "tiny", "sleepy"),
    "tail": ("curly", "fluffy", "zigzag"),
    "pose": ("sitting", "waving", "jumping"),
    "background": ("meadow", "beach", "snow", "night"),
}
"""What each field of `Critter` may be. No word stands for two things, but for the colours."""

_PLACES = {
    "meadow": "in a meadow",
    "beach": "on a beach",
    "snow": "in the snow",
    "night": "at night",
}
_WORDINGS = (
    "a drawing of a {shape} {colour} and {belly} creature with {ears} ears, {eyes} eyes "
    "and a {tail} tail, {pose} {place}",
    "a {shape} {colour} critter whose belly is {belly} is {pose} {place}, with {eyes} eyes, "
    "a {tail} tail and {ears} ears",
    "{pose} {place}, this {shape} {colour} and {belly} little monster has a {tail} tail, "
    "{ears} ears and {eyes} eyes",
    "a cartoon of a {shape} animal {pose} {place}, all {colour} and {belly}, with {ears} ears, "
    "a {tail} tail and {eyes} eyes",
    "with its {eyes} eyes, {ears} ears and {tail} tail, a {shape} {colour} and {belly} creature "
    "is {pose} {place}",
)


def load(config: DataConfig, split: str) -> CaptionDataset | None:
    """833 drawn creatures with five captions each, embedded and public domain.

    750 are for training and 83 for validation, always the same ones. They are drawn on first use
    and kept in the user's cache.
    """
    if split not in ("train", "validation"):
        return None
    from captionkit.data.dataset import CaptionDataset, cache_dir

    name = f"critters ({split})"
    try:
        cache_file = cache_dir() / f"critters-{VERSION}-{split}.arrow"
        return CaptionDataset.from_rows(_rows(split), name, cache_file)
    except OutputError:
        # nowhere to keep them: drawn again in every run, which costs two seconds
        return CaptionDataset.from_rows(_rows(split), name)


@dataclass(frozen=True)
class Critter:
    """One creature, by its attributes; `ATTRIBUTES` lists their values."""

    colour: str
    belly: str
    shape: str
    ears: str
    eyes: str
    tail: str
    pose: str
    background: str

    def __post_init__(self) -> None:
        for name, values in ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ConfigError(
                    f"A critter with {name}={getattr(self, name)!r} is not possible: "
                    f"it must be one of {', '.join(values)}."
                )
        if self.belly == self.colour:
            raise ConfigError(f"A critter's belly must differ from its colour, {self.colour!r}.")


def attributes(count: int = 833, seed: int = 0) -> list[Critter]:
    """So many different critters, the same ones for a seed on every machine."""
    possible = math.prod(len(choices) for choices in ATTRIBUTES.values()) * 5 // 6
    if not 0 <= count <= possible:
        raise ConfigError(f"count={count} is not possible: there are {possible:,} critters.")
    rng = Random(seed)
    critters: dict[Critter, None] = {}
    while len(critters) < count:
        # random() alone is promised to give the same numbers in every version of Python
        values = [choices[int(len(choices) * rng.random())] for choices in ATTRIBUTES.values()]
        if values[0] != values[1]:
            critters[Critter(*values)] = None
    return list(critters)


def captions(critter: Critter) -> tuple[str, ...]:
    """The five wordings, each of which names every attribute."""
    place = _PLACES[critter.background]
    return tuple(wording.format(place=place, **vars(critter)) for wording in _WORDINGS)


def names_every_attribute(caption: str, critter: Critter) -> bool:
    """Whether a caption says each attribute of the critter once, of the right part, and no other.

    It need not be one of the wordings, but must attach the words to the parts as they do. Case and
    punctuation do not matter.
    """
    words = re.findall(r"[a-z]+", caption.lower())
    known = {value for values in ATTRIBUTES.values() for value in values}
    if sorted(word for word in words if word in known) != sorted(astuple(critter)):
        return False
    text = f" {' '.join(words)} "
    phrases = [f"{getattr(critter, part)} {part}" for part in ("ears", "eyes", "tail")]
    phrases.append(f"{critter.pose} {_PLACES[critter.background]}")
    colours = (f"{critter.colour} and {critter.belly}", f"belly is {critter.belly}")
    return all(f" {phrase} " in text for phrase in phrases) and any(
        f" {phrase} " in text for phrase in colours
    )


def _rows(split: str) -> Iterator[dict[str, Any]]:
    for index, critter in enumerate(attributes()):
        if (index % 10 == 9) == (split == "validation"):
            png = io.BytesIO()
            # as small as at the usual level 6, in two thirds of its time
            draw(critter, variation=index).save(png, "PNG", compress_level=3)
            yield {
                "image": png.getvalue(),
                "captions": list(captions(critter)),
                "image_id": f"critter-{index:03d}",
            }
