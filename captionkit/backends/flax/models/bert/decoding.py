"""One step of BERT as a decoder: the past's keys and values are kept, the image's made once."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.bert.modeling import Layer
from captionkit.backends.flax.models.family import Weights
from captionkit.backends.flax.models.layers import attention_by_heads, unstacked

KeysValues = tuple[jax.Array, jax.Array]


class Prepared(NamedTuple):
    """What does not change while captions are generated.

    cross: by layer the keys and values of the image, `(batch, heads, tokens, head width)`.
    """

    weights: Weights
    cross: list[KeysValues]


def decoder_layers(graphdef: nnx.GraphDef, params: dict[str, Any]) -> list[Any]:
    """See `Family`."""
    decoder = nnx.merge(graphdef, params).decoder
    return unstacked(decoder.layers, decoder.config.num_hidden_layers)


def start_decoding(
    graphdef: nnx.GraphDef, weights: Weights, states: jax.Array, lanes: int, length: int
) -> tuple[Prepared, list[KeysValues]]:
    """See `Family`. states: encoded images, `(batch, tokens, width)`."""
    decoder = nnx.merge(graphdef, weights.params).decoder
    config, layerdef = decoder.config, nnx.split(decoder.layers)[0]
    heads = config.num_attention_heads
    cross = []
    for parameters in weights.layers:
        key, value = nnx.merge(layerdef, parameters).cross_keys_values(states)
        cross.append((_heads_first(key), _heads_first(value)))
    shape = (states.shape[0] * lanes, heads, length, config.hidden_size // heads)
    cache = [(jnp.zeros(shape, states.dtype), jnp.zeros(shape, states.dtype)) for _ in cross]
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
    layerdef, _ = nnx.split(decoder.layers)
    dtype = prepared.cross[0][0].dtype
    x = decoder.embeddings(tokens, position, dtype)
    new_cache = []
    for parameters, cross, past in zip(prepared.weights.layers, prepared.cross, cache, strict=True):
        x, kept = _layer_step(nnx.merge(layerdef, parameters), x, past, cross, position)
        new_cache.append(kept)
    x = decoder.head(x).reshape(-1, x.shape[-1])
    table = decoder.embeddings.word.embedding[...].astype(dtype)
    # the table first: its rows are read in order, which x @ table.T is slower at
    return (table @ x.T).T + decoder.output_bias[...].astype(dtype), new_cache


def _layer_step(
    layer: Layer, x: jax.Array, past: KeysValues, cross: KeysValues, position: jax.Array
) -> tuple[jax.Array, KeysValues]:
    """x: `(batch, lanes, width)`. Lanes are the positions that attend to one and the same image."""
    batch, lanes, _ = x.shape
    query, (key, value) = layer.queries(x), layer.keys_values(x)
    rows = (batch * lanes, query.shape[2], 1, query.shape[3])
    keys = jax.lax.dynamic_update_slice_in_dim(past[0], key.reshape(rows), position, 2)
    values = jax.lax.dynamic_update_slice_in_dim(past[1], value.reshape(rows), position, 2)
    seen = jnp.arange(keys.shape[2]) <= position
    scale = layer.config.attention_scale
    attended = attention_by_heads(query.reshape(rows), keys, values, scale=scale, mask=seen)
    x = layer.after_attention(x, attended.reshape(query.shape))

    attended = attention_by_heads(_heads_first(layer.cross_queries(x)), *cross, scale=scale)
    return layer.perceptron(layer.after_cross_attention(x, _heads_first(attended))), (keys, values)


def _heads_first(x: jax.Array) -> jax.Array:
    return x.swapaxes(1, 2)
