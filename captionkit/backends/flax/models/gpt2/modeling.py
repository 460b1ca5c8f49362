"""GPT-2 (Radford et al. 2019), with cross-attention to an encoded image in every layer."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.gpt2.config import GPT2Config
from captionkit.backends.flax.models.layers import (
    Embedding,
    LayerNorm,
    Linear,
    attention,
    dropout,
    merge_heads,
    scan_layers,
    split_heads,
    split_key,
)


class GPT2(nnx.Module):
    """Token ids and an encoded image to next-token logits."""

    def __init__(self, config: GPT2Config):
        width, std = config.n_embd, config.initializer_range
        self.config = config
        self.wte = Embedding(config.vocab_size, width, std=std)
        self.wpe = Embedding(config.n_positions, width, std=std)
        self.h = Block(config, stack=(config.n_layer,))
        self.ln_f = LayerNorm(width, epsilon=config.layer_norm_epsilon)
        if not config.tie_word_embeddings:
            self.lm_head = Embedding(config.vocab_size, width, std=std)

    @property
    def output_embedding(self) -> Embedding:
        """`(vocab, width)`, the input embedding where the two are tied."""
        return self.wte if self.config.tie_word_embeddings else self.lm_head

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
        """`(batch, length)` ids and `(batch, tokens, width)` -> logits `(batch, length, vocab)`.

        mask: `(batch, length)`, false (or 0) at padding; None: there is no padding. Computes in
        the dtype of the encoded image.
        """
        config, length = self.config, input_ids.shape[1]
        dtype = encoder_hidden_states.dtype
        keys = split_key(dropout_key, 2)
        x = self.wte(input_ids, dtype) + self.wpe(jnp.arange(length), dtype)
        x = dropout(x, config.embd_pdrop, keys[0])
        visible = jnp.tril(jnp.ones((length, length), bool))[None, None]
        if mask is not None:
            visible = visible & mask.astype(bool)[:, None, None, :]

        def body(block: Block, x: jax.Array, inputs: tuple) -> jax.Array:
            layer_scale, key = inputs
            return block(x, visible, encoder_hidden_states, layer_scale, key)

        layer_keys = None if dropout_key is None else split_key(keys[1], config.n_layer)
        inputs = (layer_scales(config), layer_keys)
        x = scan_layers(body, x, self.h, inputs, remat=remat, unroll=unroll)
        return self.output_embedding.attend(self.ln_f(x))


def layer_scales(config: GPT2Config) -> jax.Array | None:
    """`(layers,)`: 1 / (layer + 1) where the config asks for it."""
    if not config.scale_attn_by_inverse_layer_idx:
        return None
    return 1.0 / jnp.arange(1, config.n_layer + 1, dtype=jnp.float32)


class Block(nnx.Module):
    """Self-attention, cross-attention, a perceptron; each sees normalised input and is added."""

    def __init__(self, config: GPT2Config, stack: tuple[int, ...]):
        width, inner, epsilon = config.n_embd, config.n_inner, config.layer_norm_epsilon
        std = config.initializer_range
        # what is added to the residual stream starts smaller the more layers add to it
        residual_std = std / math.sqrt(2 * config.n_layer)
        self.config = config
        self.ln_1 = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.attn_qkv = Linear(width, 3 * width, std=std, stack=stack)
        self.attn_proj = Linear(width, width, std=residual_std, stack=stack)
        self.ln_cross_attn = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.cross_query = Linear(width, width, std=std, stack=stack)
        self.cross_kv = Linear(width, 2 * width, std=std, stack=stack)
        self.cross_proj = Linear(width, width, std=residual_std, stack=stack)
        self.ln_2 = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.mlp_fc = Linear(width, inner, std=std, stack=stack)
        self.mlp_proj = Linear(inner, width, std=residual_std, stack=stack)

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        encoder_hidden_states: jax.Array,
        layer_scale: jax.Array | None,
        dropout_key: jax.Array | None,
    ) -> jax.Array:
        """`(batch, length, width)` -> the same; mask as in `attention`."""
        config, keys = self.config, split_key(dropout_key, 5)
        settings = {"scale": config.attention_scale, "rate": config.attn_pdrop}

        query, key, value = self.self_qkv(x, layer_scale)
        y = attention(query, key, value, mask=mask, dropout_key=keys[0], **settings)
        x = x + dropout(self.attn_proj(merge_heads(y)), config.resid_pdrop, keys[1])

        query = self.cross_q(x, layer_scale)
        key, value = self.cross_keys_values(encoder_hidden_states)
        y = attention(query, key, value, dropout_key=keys[2], **settings)
        x = x + dropout(self.cross_proj(merge_heads(y)), config.resid_pdrop, keys[3])
        return x + dropout(self.mlp(x), config.resid_pdrop, keys[4])

    def self_qkv(
        self, x: jax.Array, layer_scale: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values of self-attention, each `(batch, length, heads, width)`."""
        qkv = jnp.split(self.attn_qkv(self.ln_1(x)), 3, axis=-1)
        query, key, value = (split_heads(part, self.config.n_head) for part in qkv)
        return _scaled(query, layer_scale), key, value

    def cross_q(self, x: jax.Array, layer_scale: jax.Array | None) -> jax.Array:
        """Queries of cross-attention, `(batch, length, heads, width)`."""
        query = split_heads(self.cross_query(self.ln_cross_attn(x)), self.config.n_head)
        return _scaled(query, layer_scale)

    def cross_keys_values(self, encoder_hidden_states: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values of the image, each `(batch, tokens, heads, width)`."""
        key, value = jnp.split(self.cross_kv(encoder_hidden_states), 2, axis=-1)
        return split_heads(key, self.config.n_head), split_heads(value, self.config.n_head)

    def mlp(self, x: jax.Array) -> jax.Array:
        """The perceptron on normalised input."""
        hidden = activation(self.config.activation_function)(self.mlp_fc(self.ln_2(x)))
        return self.mlp_proj(hidden)


def _scaled(query: jax.Array, layer_scale: jax.Array | None) -> jax.Array:
    return query if layer_scale is None else query * layer_scale.astype(query.dtype)
