"""One step of generation: keys and values of the image are made once, shared by all its lanes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.bert.modeling import Layer
from captionkit.backends.flax.models.family import Weights
from captionkit.backends.flax.models.layers import attention, unstacked

KeysValues = tuple[jax.Array, jax.Array]


class Prepared(NamedTuple):
    """What does not change while captions are generated.

    image: by layer the image's keys and values, `(batch, heads, tokens, head width)`.
    """

    weights: Weights
    image: list[KeysValues]


def decoder_layers(graphdef: nnx.GraphDef, params: dict[str, Any]) -> list[Any]:
    """See `Family`."""
    model = nnx.merge(graphdef, params)
    count = model.config.text.num_hidden_layers - 1
    return [*unstacked(model.layers, count), nnx.split(model.last_layer)[1]]


def start_decoding(
    graphdef: nnx.GraphDef, weights: Weights, states: jax.Array, lanes: int, length: int
) -> tuple[Prepared, list[KeysValues]]:
    """See `Family`. states: image tokens, `(batch, tokens, width)`."""
    model = nnx.merge(graphdef, weights.params)
    text, layerdef = model.config.text, nnx.split(model.layers)[0]

    image, x = [], states
    for parameters in weights.layers[:-1]:
        layer = nnx.merge(layerdef, parameters)
        key, value = layer.keys_values(x)
        image.append((_heads_first(key), _heads_first(value)))
        attended = attention(layer.queries(x), key, value, scale=text.attention_scale)
        x = layer.perceptron(layer.after_attention(x, attended))
    key, value = model.last_layer.keys_values(x)
    image.append((_heads_first(key), _heads_first(value)))

    rows, dtype = states.shape[0] * lanes, states.dtype
    heads = text.num_attention_heads
    shape = (rows, heads, length, text.hidden_size // heads)
    cache = [(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in image]
    return Prepared(weights, image), cache


def decode_step(
    graphdef: nnx.GraphDef,
    prepared: Prepared,
    cache: list[KeysValues],
    tokens: jax.Array,
    position: jax.Array,
) -> tuple[jax.Array, list[KeysValues]]:
    """See `Family`."""
    model = nnx.merge(graphdef, prepared.weights.params)
    layerdef, _ = nnx.split(model.last_layer)
    dtype = prepared.image[0][0].dtype
    x = model.embeddings(tokens, position, dtype)
    new_cache = []
    for parameters, image, past in zip(prepared.weights.layers, prepared.image, cache, strict=True):
        x, kept = _layer_step(nnx.merge(layerdef, parameters), x, past, image, position)
        new_cache.append(kept)
    x = x.reshape(-1, x.shape[-1])
    table = model.output_embedding.embedding[...].astype(dtype)
    # the table first: its rows are read in order, which x @ table.T is slower at
    return (table @ x.T).T + model.output_bias[...].astype(dtype), new_cache


def _layer_step(
    layer: Layer, x: jax.Array, past: KeysValues, image: KeysValues, position: jax.Array
) -> tuple[jax.Array, KeysValues]:
    """x: `(batch, lanes, width)`."""
    batch, lanes, _ = x.shape
    query, (key, value) = _heads_first(layer.queries(x)), layer.keys_values(x)
    rows = (batch * lanes, key.shape[2], 1, key.shape[3])
    keys = jax.lax.dynamic_update_slice_in_dim(past[0], key.reshape(rows), position, 2)
    values = jax.lax.dynamic_update_slice_in_dim(past[1], value.reshape(rows), position, 2)

    # one softmax over the image, which lanes share, and the text, which is each lane's own
    of_lane = (batch, lanes, *keys.shape[1:])
    to_image = _products("bhld,bhsd->bhls", query, image[0])
    to_text = _products("bhld,blhsd->bhls", query, keys.reshape(of_lane))
    seen = jnp.arange(keys.shape[2]) <= position
    to_text = jnp.where(seen, to_text, jnp.finfo(jnp.float32).min)
    logits = jnp.concatenate([to_image, to_text], axis=-1) * layer.config.attention_scale
    weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
    count = to_image.shape[-1]
    attended = jnp.einsum("bhls,bhsd->blhd", weights[..., :count], image[1])
    attended += jnp.einsum("bhls,blhsd->blhd", weights[..., count:], values.reshape(of_lane))
    return layer.perceptron(layer.after_attention(x, attended)), (keys, values)


def _products(subscripts: str, query: jax.Array, keys: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, query, keys, preferred_element_type=jnp.float32)


def _heads_first(x: jax.Array) -> jax.Array:
    # a step then reads each head's keys in order, and transposes nothing
    return x.swapaxes(1, 2)
