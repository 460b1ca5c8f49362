"""A model with all that belongs to it, from a folder to a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.models.family import Family
from captionkit.data.captions import save_tokenizer
from captionkit.data.preprocess import Preprocessor
from captionkit.decoding_defaults import generation_values
from captionkit.models import has_weights, load_tokenizer, model_type
from captionkit.recipe import Decoding


class Model(NamedTuple):
    """Weights, what they are the weights of, and how its text and its images are made.

    family: see `models`. params: a nested dict of float32 arrays. generation: the values
    of generation_config.json.
    """

    family: Family
    config: Any
    params: dict[str, Any]
    tokenizer: Any
    preprocess: Preprocessor
    generation: dict[str, Any]


def open_model(folder: Path, seed: int, trust_remote_code: bool = False) -> Model:
    """The model in a folder; without weights there, one to train from scratch.

    Raises CheckpointError.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code)
    preprocess = Preprocessor.from_checkpoint(folder)
    family = family_of(model_type(folder))
    config = family.config_of(folder)
    preprocess.require_size(family.image_size(config), folder)
    if has_weights(folder):
        params = family.load_params(folder, config)
    else:
        config = family.for_tokenizer(config, tokenizer)
        params = family.init_params(config, seed)
    generation = folder / "generation_config.json"
    values = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    return Model(family, config, params, tokenizer, preprocess, values)


def write_config_files(folder: Path, model: Model, decoding: Decoding) -> None:
    """Write all that is small: tokenizer, image processor, and how captions are generated."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(model.tokenizer, folder)
    model.preprocess.save(folder)
    start, ends, pad = model.family.token_ids(model.config)
    values = {
        **generation_values(model.generation, decoding),
        "decoder_start_token_id": start,
        "bos_token_id": start,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends),
        "pad_token_id": pad,
    }
    text = json.dumps(values, indent=2) + "\n"
    (folder / "generation_config.json").write_text(text, encoding="utf-8")
