"""What a checkpoint says of its own decoding, in our terms; the same for every backend."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from captionkit.errors import CheckpointError, ConfigError
from captionkit.recipe import Decoding

# settings of transformers that would change captions, each with the values that change nothing
_NOT_APPLIED: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "bad_words_ids": (None, []),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None, {}, []),
    "forced_bos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "num_beam_groups": (None, 1),
    "diversity_penalty": (None, 0.0),
    "penalty_alpha": (None, 0.0),
    "typical_p": (None, 1.0),
    "min_p": (None, 0.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "guidance_scale": (None, 1.0),
}


def decoding_defaults(folder: Path) -> dict[str, Any]:
    """The fields of `Decoding` that a checkpoint folder sets.

    From `generation_config.json`; without it from the model's config, where transformers 4 kept
    it. Not `num_return_sequences`: several captions an image must be asked for. A setting that
    changes captions and that we do not have is named in a warning. Raises CheckpointError for a
    file that cannot be read.
    """
    file = folder / "generation_config.json"
    if not file.is_file():
        file = folder / "config.json"
    values = _read(file)
    if file.name == "config.json" and isinstance(values.get("decoder"), dict):
        values = {**values["decoder"], **values}
    defaults: dict[str, Any] = {}
    refused = [
        f"{name}={values[name]!r}"
        for name, neutral in _NOT_APPLIED.items()
        if values.get(name) not in neutral
    ]
    for name in (field.name for field in fields(Decoding) if field.name != "num_return_sequences"):
        if values.get(name) is None:
            continue
        try:
            defaults[name] = getattr(Decoding(**{name: values[name]}), name)
        except ConfigError:
            refused.append(f"{name}={values[name]!r}")
    if defaults.get("do_sample"):
        defaults.setdefault("top_k", 50)  # the library's default, which files leave out
    elif defaults.get("top_k") == 50:
        defaults.pop("top_k")  # not the checkpoint's choice
    length = values.get("max_length")
    # 20 is the library's default; the start token is counted in it
    if "max_new_tokens" not in defaults and isinstance(length, int) and length != 20:
        defaults["max_new_tokens"] = max(1, length - 1)
    if refused:
        warnings.warn(
            f"{file} sets {', '.join(refused)}, which captionkit does not apply: its captions may "
            "differ from those of transformers.",
            stacklevel=2,
        )
    return defaults


def generation_values(start: Mapping[str, Any], decoding: Decoding) -> dict[str, Any]:
    """generation_config.json of a model that captions as it was evaluated, with these settings.

    start: that of the checkpoint it was trained from, of which other things than decoding are kept.
    What plain settings do not need is left out.
    """
    ours = {field.name: field.default for field in fields(Decoding)}
    kept = {
        name: value
        for name, value in start.items()
        if name not in (*ours, *_NOT_APPLIED, "max_length")
    }
    chosen = {name: getattr(decoding, name) for name in ours if name != "num_return_sequences"}
    needed = {"max_new_tokens", "num_beams"}
    drawing = {"temperature", "top_p", "top_k"}
    if decoding.do_sample:
        needed |= drawing  # transformers takes a top_k of 50 where there is none
    return kept | {
        name: value
        for name, value in chosen.items()
        if name in needed or (name not in drawing and value != ours[name])
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} holds {type(values).__name__}, where an object is expected.")
    return values
