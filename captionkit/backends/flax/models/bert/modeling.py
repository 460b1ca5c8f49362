"""BERT (Devlin et al. 2018, arXiv:1810.04805): embeddings, and layers that normalise their sums."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.bert.config import BertConfig
from captionkit.backends.flax.models.layers import (
    Embedding,
    LayerNorm,
    Linear,
    attention,
    dropout,
    merge_heads,
    parameter,
    scan_layers,
    split_heads,
    split_key,
)


class Embeddings(nnx.Module):
    """Words and positions, and the first segment where there are segments; normalised."""

    def __init__(self, config: BertConfig):
        width, std = config.hidden_size, config.initializer_range
        self.config = config
        self.word = Embedding(config.vocab_size, width, std=std, padding=config.pad_token_id)
        self.position = Embedding(config.max_position_embeddings, width, std=std)
        segments = config.type_vocab_size
        self.segment = parameter((segments, width), std) if segments else None
        self.norm = LayerNorm(width, epsilon=config.layer_norm_eps)

    def __call__(
        self,
        ids: jax.Array,
        positions: jax.Array,
        dtype: jnp.dtype,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """`(batch, length)` and `(length,)` or a number -> `(batch, length, hidden_size)`."""
        x = self.word(ids, dtype) + self.position(positions, dtype)
        if self.segment is not None:
            x = x + self.segment[...][0].astype(dtype)
        return dropout(self.norm(x), self.config.hidden_dropout_prob, dropout_key)


class Layer(nnx.Module):
    """The parts of a layer; who uses it says what attends to what.

    Self-attention, where the config has it cross-attention, and a perceptron; after each the sum
    with its input is normalised.
    """

    def __init__(self, config: BertConfig, stack: tuple[int, ...] = ()):
        width, inner = config.hidden_size, config.intermediate_size
        linear = partial(Linear, std=config.initializer_range, stack=stack)
        norm = partial(LayerNorm, width, epsilon=config.layer_norm_eps, stack=stack)
        self.config = config
        self.query = linear(width, width)
        self.key = linear(width, width)
        self.value = linear(width, width)
        self.attention_out = linear(width, width)
        self.attention_norm = norm()
        if attended := config.encoder_hidden_size:
            self.cross_query = linear(width, width)
            self.cross_key = linear(attended, width)
            self.cross_value = linear(attended, width)
            self.cross_out = linear(width, width)
            self.cross_norm = norm()
        self.intermediate = linear(width, inner)
        self.output = linear(inner, width)
        self.output_norm = norm()

    def queries(self, x: jax.Array) -> jax.Array:
        """`(batch, length, width)` -> `(batch, length, heads, head width)`."""
        return self._heads(self.query(x))

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values of self-attention, each `(batch, length, heads, head width)`."""
        return self._heads(self.key(x)), self._heads(self.value(x))

    def after_attention(
        self, x: jax.Array, attended: jax.Array, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """x: the input; attended: `(batch, length, heads, head width)`."""
        y = dropout(
            self.attention_out(merge_heads(attended)), self.config.hidden_dropout_prob, dropout_key
        )
        return self.attention_norm(x + y)

    def perceptron(self, x: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """The last part of the layer, `(batch, length, width)` -> the same."""
        y = self.output(activation(self.config.hidden_act)(self.intermediate(x)))
        return self.output_norm(x + dropout(y, self.config.hidden_dropout_prob, dropout_key))

    # ---- cross-attention -----------------------------------------------------------------------

    def cross_queries(self, x: jax.Array) -> jax.Array:
        """As `queries`."""
        return self._heads(self.cross_query(x))

    def cross_keys_values(self, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        """As `keys_values`, of the encoded image `(batch, tokens, encoder width)`."""
        return self._heads(self.cross_key(states)), self._heads(self.cross_value(states))

    def after_cross_attention(
        self, x: jax.Array, attended: jax.Array, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """As `after_attention`."""
        y = dropout(
            self.cross_out(merge_heads(attended)), self.config.hidden_dropout_prob, dropout_key
        )
        return self.cross_norm(x + y)

    def _heads(self, x: jax.Array) -> jax.Array:
        return split_heads(x, self.config.num_attention_heads)


class BertDecoder(nnx.Module):
    """Token ids and an encoded image to next-token logits."""

    def __init__(self, config: BertConfig):
        width = config.hidden_size
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = Layer(config, stack=(config.num_hidden_layers,))
        self.transform = Linear(width, width, std=config.initializer_range)
        self.transform_norm = LayerNorm(width, epsilon=config.layer_norm_eps)
        self.output_bias = parameter((config.vocab_size,))

    def __call__(
        self,
        input_ids: jax.Array,
        mask: jax.Array | None,
        encoder_hidden_states: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
        remat: bool = False,
        unroll: bool = False,
    ) -> jax.Array:
        """`(batch, length)` ids and `(batch, tokens, encoder width)` -> `(batch, length, vocab)`.

        mask: `(batch, length)`, false (or 0) at padding; None: there is no padding. Computes in
        the dtype of the encoded image.
        """
        config, length = self.config, input_ids.shape[1]
        keys = split_key(dropout_key, 2)
        dtype = encoder_hidden_states.dtype
        x = self.embeddings(input_ids, jnp.arange(length), dtype, keys[0])
        visible = jnp.tril(jnp.ones((length, length), bool))[None, None]
        if mask is not None:
            visible = visible & mask.astype(bool)[:, None, None, :]
        settings = {"scale": config.attention_scale, "rate": config.attention_probs_dropout_prob}

        def body(layer: Layer, x: jax.Array, key: jax.Array | None) -> jax.Array:
            keys = split_key(key, 5)
            attended = attention(
                layer.queries(x), *layer.keys_values(x), mask=visible, dropout_key=keys[0],
                **settings,
            )  # fmt: skip
            x = layer.after_attention(x, attended, keys[1])
            attended = attention(
                layer.cross_queries(x), *layer.cross_keys_values(encoder_hidden_states),
                dropout_key=keys[2], **settings,
            )  # fmt: skip
            return layer.perceptron(layer.after_cross_attention(x, attended, keys[3]), keys[4])

        layer_keys = None
        if dropout_key is not None:
            layer_keys = split_key(keys[1], config.num_hidden_layers)
        x = scan_layers(body, x, self.layers, layer_keys, remat=remat, unroll=unroll)
        x = self.head(x)
        return self.embeddings.word.attend(x) + self.output_bias[...].astype(x.dtype)

    def head(self, x: jax.Array) -> jax.Array:
        """`(..., width)` -> the same, to be multiplied by the embeddings of all words."""
        return self.transform_norm(activation(self.config.hidden_act)(self.transform(x)))
