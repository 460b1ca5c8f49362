"""Reading config.json and generation_config.json of a whole model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captionkit.errors import CheckpointError

TokenIds = tuple[int, tuple[int, ...], int]
"""The token that decoding starts from, those that end a caption, and the one that pads it."""


def read_config(folder: Path) -> tuple[dict[str, Any], str, dict[str, Any] | None]:
    """config.json, its path for messages, and generation_config.json where there is one.

    Raises CheckpointError.
    """
    path, generation = folder / "config.json", folder / "generation_config.json"
    return _read(path), str(path), _read(generation) if generation.is_file() else None


def token_ids(
    places: Sequence[Mapping[str, Any]],
    where: str,
    start_names: Sequence[str],
    default: tuple[int, int] | None,
) -> TokenIds:
    """Start, end and padding token from the first of the places that names each.

    default: start and end where nothing names them; None: then that is an error. Without a padding
    token captions are padded with the first end token. Raises CheckpointError.
    """
    start = _first(places, *start_names)
    end = _first(places, "eos_token_id")
    if default is not None:
        start = default[0] if start is None else start
        end = default[1] if end is None else end
    ends = tuple(end) if isinstance(end, (list, tuple)) else (end,)
    pad = _first(places, "pad_token_id")
    pad = ends[0] if pad is None and ends else pad
    for name, tokens in (("start", (start,)), ("end", ends), ("padding", (pad,))):
        for token in tokens or (None,):
            if isinstance(token, bool) or not isinstance(token, int):
                raise CheckpointError(f"{where}: the {name} token {token!r} is not a token id.")
    return start, ends, pad


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds {type(values).__name__}, where an object is expected.")
    return values


def _first(places: Sequence[Mapping[str, Any]], *names: str) -> Any:
    for name in names:
        for place in places:
            if place.get(name) is not None:
                return place[name]
    return None
