"""One step of generation: keys and values of the past are kept, those of the image made once."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.family import Weights
from captionkit.backends.flax.models.gpt2.modeling import Block, layer_scales
from captionkit.backends.flax.models.layers import attention_by_heads, merge_heads, unstacked

KeysValues = tuple[jax.Array, jax.Array]


class Prepared(NamedTuple):
    """What does not change while captions are generated.

    cross: by layer the keys and values of the image, `(batch, heads, tokens, width)`.
    """

    weights: Weights
    cross: list[KeysValues]


def decoder_layers(graphdef: nnx.GraphDef, params: dict[str, Any]) -> list[Any]:
    """See `Family`."""
    decoder = nnx.merge(graphdef, params).decoder
    return unstacked(decoder.h, decoder.config.n_layer)


def start_decoding(
    graphdef: nnx.GraphDef, weights: Weights, states: jax.Array, lanes: int, length: int
) -> tuple[Prepared, list[KeysValues]]:
    """See `Family`. states: encoded images, `(batch, tokens, width)`."""
    decoder = nnx.merge(graphdef, weights.params).decoder
    config, blockdef = decoder.config, nnx.split(decoder.h)[0]
    blocks = [nnx.merge(blockdef, parameters) for parameters in weights.layers]
    cross = [block.cross_keys_values(states) for block in blocks]
    # heads first: a step then reads each head's keys in order, and transposes nothing
    cross = [(key.swapaxes(1, 2), value.swapaxes(1, 2)) for key, value in cross]
    batch, dtype = states.shape[0], states.dtype
    shape = (batch * lanes, config.n_head, length, config.n_embd // config.n_head)
    cache = [(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in blocks]
    return Prepared(weights, cross), cache


def decode_step(
    graphdef: nnx.GraphDef,
    prepared: Prepared,
    cache: list[KeysValues],
    tokens: jax.Array,
    position: jax.Array,
) -> tuple[jax.Array, list[KeysValues]]:
    """See `Family`."""
    decoder = nnx.merge(graphdef, prepared.weights.params).decoder
    config, scales = decoder.config, layer_scales(decoder.config)
    blockdef, _ = nnx.split(decoder.h)
    dtype = prepared.cross[0][0].dtype
    x = decoder.wte(tokens, dtype) + decoder.wpe(position, dtype)
    new_cache = []
    for i, (parameters, cross, past) in enumerate(
        zip(prepared.weights.layers, prepared.cross, cache, strict=True)
    ):
        scale = None if scales is None else scales[i]
        block = nnx.merge(blockdef, parameters)
        x, kept = _block_step(block, x, past, cross, position, scale)
        new_cache.append(kept)
    x = decoder.ln_f(x).reshape(-1, config.n_embd)
    table = decoder.output_embedding.embedding[...].astype(dtype)
    # the table first: its rows are read in order, which x @ table.T is slower at
    return (table @ x.T).T, new_cache


def _block_step(
    block: Block,
    x: jax.Array,
    past: KeysValues,
    cross: KeysValues,
    position: jax.Array,
    layer_scale: jax.Array | None,
) -> tuple[jax.Array, KeysValues]:
    """x: `(batch, lanes, width)`. Lanes are the positions that attend to one and the same image."""
    scale = block.config.attention_scale
    batch, lanes, _ = x.shape

    query, key, value = block.self_qkv(x, layer_scale)
    rows = (batch * lanes, query.shape[2], 1, query.shape[3])
    keys = jax.lax.dynamic_update_slice_in_dim(past[0], key.reshape(rows), position, 2)
    values = jax.lax.dynamic_update_slice_in_dim(past[1], value.reshape(rows), position, 2)
    seen = jnp.arange(keys.shape[2]) <= position
    y = attention_by_heads(query.reshape(rows), keys, values, scale=scale, mask=seen)
    x = x + block.attn_proj(y.reshape(batch, lanes, -1))

    query = block.cross_q(x, layer_scale).swapaxes(1, 2)
    y = attention_by_heads(query, *cross, scale=scale).swapaxes(1, 2)
    x = x + block.cross_proj(merge_heads(y))
    return x + block.mlp(x), (keys, values)
