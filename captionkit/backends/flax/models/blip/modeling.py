"""BLIP as a captioner (Li et al. 2022, arXiv:2201.12086): a ViT, and a BERT that attends to it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.bert.modeling import BertDecoder
from captionkit.backends.flax.models.blip.config import BlipConfig
from captionkit.backends.flax.models.layers import (
    LayerNorm,
    Linear,
    attention,
    merge_heads,
    scan_layers,
    split_heads,
    split_key,
)
from captionkit.backends.flax.models.vit.config import ViTConfig
from captionkit.backends.flax.models.vit.modeling import Embeddings


class Blip(nnx.Module):
    """An image and the text so far to next-token logits."""

    def __init__(self, config: BlipConfig):
        vision = config.vision
        self.config = config
        self.embeddings = Embeddings(vision)
        self.layers = Layer(vision, stack=(vision.num_hidden_layers,))
        self.post_layernorm = LayerNorm(vision.hidden_size, epsilon=vision.layer_norm_eps)
        self.decoder = BertDecoder(config.text)

    def encode(
        self,
        pixel_values: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
        dtype: jnp.dtype = jnp.float32,
        remat: bool = False,
        unroll: bool = False,
    ) -> jax.Array:
        """`(batch, height, width, 3)` -> `(batch, tokens, image width)` in `dtype`."""
        x = self.embeddings(jnp.asarray(pixel_values, dtype))
        keys = None
        if dropout_key is not None:
            keys = split_key(dropout_key, self.config.vision.num_hidden_layers)
        x = scan_layers(Layer.__call__, x, self.layers, keys, remat=remat, unroll=unroll)
        return self.post_layernorm(x)

    def decode(
        self,
        states: jax.Array,
        input_ids: jax.Array,
        mask: jax.Array | None,
        *,
        dropout_key: jax.Array | None = None,
        remat: bool = False,
        unroll: bool = False,
    ) -> jax.Array:
        """Encoded images and ids `(batch, length)` -> logits `(batch, length, vocab)`."""
        return self.decoder(
            input_ids, mask, states, dropout_key=dropout_key, remat=remat, unroll=unroll
        )


class Layer(nnx.Module):
    """ViT's layer, with queries, keys and values made by one matrix."""

    def __init__(self, config: ViTConfig, stack: tuple[int, ...]):
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        epsilon = config.layer_norm_eps
        self.config = config
        self.layer_norm1 = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.qkv = Linear(width, 3 * width, std=std, stack=stack)
        self.projection = Linear(width, width, std=std, stack=stack)
        self.layer_norm2 = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.fc1 = Linear(width, inner, std=std, stack=stack)
        self.fc2 = Linear(inner, width, std=std, stack=stack)

    def __call__(self, x: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        """`(batch, tokens, width)` -> the same."""
        config, heads = self.config, self.config.num_attention_heads
        query, key, value = jnp.split(self.qkv(self.layer_norm1(x)), 3, axis=-1)
        y = attention(
            split_heads(query, heads),
            split_heads(key, heads),
            split_heads(value, heads),
            scale=(config.hidden_size // heads) ** -0.5,
            rate=config.attention_probs_dropout_prob,
            dropout_key=dropout_key,
        )
        x = x + self.projection(merge_heads(y))
        return x + self.fc2(activation(config.hidden_act)(self.fc1(self.layer_norm2(x))))
