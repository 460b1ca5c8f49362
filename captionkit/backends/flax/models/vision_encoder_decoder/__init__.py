"""ViT or DeiT with GPT-2: the functions that training, generation and checkpoints work with.

A model is a pair (graphdef, params): `graphdef` is static and hashable, `params` a nested dict of
float32 arrays in which the layers of a stack lie behind one another.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models import convert
from captionkit.backends.flax.models.files import read_tensors, write_tensors
from captionkit.backends.flax.models.initial import initial_values
from captionkit.backends.flax.models.vision_encoder_decoder.config import Config
from captionkit.backends.flax.models.vision_encoder_decoder.decoding import (
    decode_step,
    start_decoding,
)
from captionkit.backends.flax.models.vision_encoder_decoder.modeling import VisionEncoderDecoder
from captionkit.backends.flax.models.vision_encoder_decoder.weights import known_names, table
from captionkit.data.captions import special_ids

__all__ = [
    "UNTRAINED", "Config", "abstract", "apply", "config_of", "decode", "decode_step", "encode",
    "for_tokenizer", "image_size", "init_params", "load_params", "save_params", "start_decoding",
    "tensor_names", "text_limit", "token_ids",
]  # fmt: skip

Params = dict[str, Any]

UNTRAINED = ("encoder.pooler.*",)
"""Patterns of tensors that no caption depends on; they are kept as they are."""


# ---- what a model is made of -----------------------------------------------------------------


def config_of(folder: Path) -> Config:
    """The configuration in a checkpoint folder. Raises CheckpointError for what we lack."""
    return Config.from_folder(folder)


def for_tokenizer(config: Config, tokenizer: Any) -> Config:
    """The configuration with vocabulary size and special ids, for a model made from scratch."""
    values = json.loads(config.source)
    start, end, pad = special_ids(tokenizer)
    tokens = {"eos_token_id": end, "pad_token_id": pad}
    values |= {**tokens, "decoder_start_token_id": start}
    values["decoder"] |= {**tokens, "bos_token_id": start, "vocab_size": len(tokenizer)}
    return Config.from_dict(values, "config.json")


def text_limit(config: Config) -> int:
    """The longest caption in tokens, start and end included."""
    return config.decoder.n_positions


def image_size(config: Config) -> tuple[int, int]:
    """(height, width) in pixels that the image encoder was made for."""
    return config.encoder.image_size


def token_ids(config: Config) -> tuple[int, tuple[int, ...], int]:
    """The token that decoding starts from, those that end a caption, and the one that pads it."""
    return config.decoder_start_token_id, config.eos_token_ids, config.pad_token_id


@lru_cache(maxsize=8)
def _split(config: Config) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(VisionEncoderDecoder(config), nnx.Param)


def abstract(config: Config) -> tuple[nnx.GraphDef, Params]:
    """(graphdef, shapes and dtypes of the parameters)."""
    graphdef, state = _split(config)
    return graphdef, nnx.to_pure_dict(state)


# ---- weights ---------------------------------------------------------------------------------


def init_params(config: Config, seed: int) -> Params:
    """Parameters as transformers initialises them: normal, the same for a seed anywhere."""
    return initial_values(_split(config)[1], seed)


def load_params(folder: Path, config: Config) -> Params:
    """The weights of a folder (safetensors, whole or sharded, or flax_model.msgpack) as numpy.

    Raises CheckpointError with the names that are missing, unknown, or of another shape.
    """
    tensors = known_names(read_tensors(folder), config, str(folder))
    return convert.to_flax(tensors, table(config), abstract(config)[1], str(folder))


def save_params(folder: Path, params: Params, config: Config) -> None:
    """Write `model.safetensors` and `config.json`, as transformers names things."""
    values = json.loads(config.source) | {"architectures": ["VisionEncoderDecoderModel"]}
    values = {"dtype": "float32", "model_type": "vision-encoder-decoder"} | values
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, convert.to_hf(params, table(config)))
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def tensor_names(config: Config) -> list[tuple[str, tuple[str, ...], int | None]]:
    """(name in model.safetensors, path of the parameter, its layer where layers are stacked)."""
    return convert.tensor_names(table(config), abstract(config)[1])


# ---- forward ---------------------------------------------------------------------------------


def apply(
    graphdef: nnx.GraphDef,
    params: Params,
    pixel_values: jax.Array,
    input_ids: jax.Array,
    mask: jax.Array | None,
    *,
    dropout_key: jax.Array | None = None,
    dtype: jnp.dtype = jnp.float32,
    remat: bool = False,
    unroll: bool = False,
) -> jax.Array:
    """Teacher-forced next-token logits, `(batch, length, vocab)` in `dtype`.

    pixel_values: `(batch, height, width, 3)`, normalised. input_ids: `(batch, length)`, the start
    token first. mask: `(batch, length)`, false at padding. Without a dropout key there is none.
    remat: keep no activation of a layer for the backward pass. unroll: no loop over layers.
    """
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    settings = {"remat": remat, "unroll": unroll}
    model = nnx.merge(graphdef, params)
    states = model.encode(pixel_values, dropout_key=keys[0], dtype=dtype, **settings)
    return model.decoder(input_ids, mask, states, dropout_key=keys[1], **settings)


def encode(
    graphdef: nnx.GraphDef,
    params: Params,
    pixel_values: jax.Array,
    dtype: jnp.dtype = jnp.float32,
) -> jax.Array:
    """The encoded images, `(batch, tokens, decoder width)` in `dtype`."""
    return nnx.merge(graphdef, params).encode(pixel_values, dtype=dtype)


def decode(
    graphdef: nnx.GraphDef,
    params: Params,
    encoder_hidden_states: jax.Array,
    input_ids: jax.Array,
    mask: jax.Array | None,
) -> jax.Array:
    """Teacher-forced next-token logits, `(batch, length, vocab)`, from encoded images."""
    return nnx.merge(graphdef, params).decoder(input_ids, mask, encoder_hidden_states)
