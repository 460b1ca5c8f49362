"""ViT (Dosovitskiy et al. 2020, arXiv:2010.11929) and DeiT (Touvron et al. 2020, 2012.12877).

Pre-norm transformer over image patches, a class token in front; DeiT adds a distillation token.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.layers import (
    LayerNorm,
    Linear,
    Patches,
    attention,
    dropout,
    merge_heads,
    parameter,
    scan_layers,
    split_heads,
    split_key,
)
from captionkit.backends.flax.models.vit.config import ViTConfig


class ViT(nnx.Module):
    """Pixels to one vector a token, after the last normalisation."""

    def __init__(self, config: ViTConfig):
        width, std = config.hidden_size, config.initializer_range
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = Layer(config, stack=(config.num_hidden_layers,))
        self.layernorm = LayerNorm(width, epsilon=config.layer_norm_eps)
        # not used, and kept: Hugging Face files hold it and its loaders look for it
        self.pooler = Linear(width, config.pooler_output_size, std=std)

    def __call__(
        self,
        pixel_values: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
        dtype: jnp.dtype = jnp.float32,
        remat: bool = False,
        unroll: bool = False,
    ) -> jax.Array:
        """`(batch, height, width, channels)`, normalised -> `(batch, tokens, hidden_size)`."""
        keys = split_key(dropout_key, 2)
        x = self.embeddings(jnp.asarray(pixel_values, dtype))
        x = dropout(x, self.config.hidden_dropout_prob, keys[0])
        layer_keys = None
        if dropout_key is not None:
            layer_keys = split_key(keys[1], self.config.num_hidden_layers)
        x = scan_layers(Layer.__call__, x, self.layers, layer_keys, remat=remat, unroll=unroll)
        return self.layernorm(x)


class Embeddings(nnx.Module):
    """Patches projected, special tokens in front, positions added."""

    def __init__(self, config: ViTConfig):
        width, std = config.hidden_size, config.initializer_range
        if config.distillation_token:  # DeiT starts its tokens and positions from zero
            self.distillation_token = parameter((1, 1, width))
            std = 0.0
        self.config = config
        self.cls_token = parameter((1, 1, width), std)
        self.position_embeddings = parameter((1, config.tokens, width), std)
        self.patch_embeddings = Patches(
            config.patch_size, config.num_channels, width, std=config.initializer_range
        )

    def __call__(self, pixel_values: jax.Array) -> jax.Array:
        """`(batch, height, width, channels)` -> `(batch, tokens, hidden_size)`."""
        patches = self.patch_embeddings(pixel_values)
        special = [self.cls_token]
        if self.config.distillation_token:
            special.append(self.distillation_token)
        shape = (patches.shape[0], 1, patches.shape[2])
        rows = [jnp.broadcast_to(token[...].astype(patches.dtype), shape) for token in special]
        x = jnp.concatenate([*rows, patches], axis=1)
        return x + self.position_embeddings[...].astype(x.dtype)


class Layer(nnx.Module):
    """Attention, then a two-layer perceptron, each on normalised input and added to it."""

    def __init__(self, config: ViTConfig, stack: tuple[int, ...]):
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        epsilon = config.layer_norm_eps
        self.config = config
        self.layernorm_before = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.query = Linear(width, width, std=std, bias=config.qkv_bias, stack=stack)
        self.key = Linear(width, width, std=std, bias=config.qkv_bias, stack=stack)
        self.value = Linear(width, width, std=std, bias=config.qkv_bias, stack=stack)
        self.out = Linear(width, width, std=std, stack=stack)
        self.layernorm_after = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.intermediate = Linear(width, inner, std=std, stack=stack)
        self.output = Linear(inner, width, std=std, stack=stack)

    def __call__(self, x: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        """`(batch, tokens, width)` -> the same."""
        config, keys = self.config, split_key(dropout_key, 3)
        heads, hidden_dropout = config.num_attention_heads, config.hidden_dropout_prob

        y = self.layernorm_before(x)
        y = attention(
            split_heads(self.query(y), heads),
            split_heads(self.key(y), heads),
            split_heads(self.value(y), heads),
            scale=(config.hidden_size // heads) ** -0.5,
            rate=config.attention_probs_dropout_prob,
            dropout_key=keys[0],
        )
        x = x + dropout(self.out(merge_heads(y)), hidden_dropout, keys[1])

        y = activation(config.hidden_act)(self.intermediate(self.layernorm_after(x)))
        return x + dropout(self.output(y), hidden_dropout, keys[2])
