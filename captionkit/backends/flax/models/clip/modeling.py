"""The image encoder of CLIP (Radford et al. 2021, arXiv:2103.00020): a ViT with a norm in front."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.clip.config import CLIPVisionConfig
from captionkit.backends.flax.models.layers import (
    LayerNorm,
    Linear,
    Patches,
    attention,
    merge_heads,
    parameter,
    scan_layers,
    split_heads,
    split_key,
)


class CLIPVision(nnx.Module):
    """Pixels to one vector a token."""

    def __init__(self, config: CLIPVisionConfig):
        width, epsilon, initial = config.hidden_size, config.layer_norm_eps, config.initial
        self.config = config
        self.class_embedding = parameter((width,), initial.class_embedding)
        self.patch_embedding = Patches(
            config.patch_size, config.num_channels, width, std=initial.patches, bias=False
        )
        self.position_embedding = parameter((config.tokens, width), initial.positions)
        self.pre_layernorm = LayerNorm(width, epsilon=epsilon)
        self.layers = Layer(config, stack=(config.num_hidden_layers,))
        self.post_layernorm = LayerNorm(width, epsilon=epsilon)

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
        config = self.config
        patches = self.patch_embedding(jnp.asarray(pixel_values, dtype))
        token = self.class_embedding[...].astype(dtype)
        token = jnp.broadcast_to(token, (patches.shape[0], 1, config.hidden_size))
        x = jnp.concatenate([token, patches], axis=1)
        x = self.pre_layernorm(x + self.position_embedding[...].astype(dtype))
        keys = None
        if dropout_key is not None:
            keys = split_key(dropout_key, config.num_hidden_layers)
        x = scan_layers(Layer.__call__, x, self.layers, keys, remat=remat, unroll=unroll)
        return self.post_layernorm(x) if config.normalise_all else x


class Layer(nnx.Module):
    """Attention, then a two-layer perceptron, each on normalised input and added to it."""

    def __init__(self, config: CLIPVisionConfig, stack: tuple[int, ...]):
        width, inner, epsilon = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        initial = config.initial
        self.config = config
        self.layer_norm1 = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.query = Linear(width, width, std=initial.query_key_value, stack=stack)
        self.key = Linear(width, width, std=initial.query_key_value, stack=stack)
        self.value = Linear(width, width, std=initial.query_key_value, stack=stack)
        self.out = Linear(width, width, std=initial.attention_out, stack=stack)
        self.layer_norm2 = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.fc1 = Linear(width, inner, std=initial.fc1, stack=stack)
        self.fc2 = Linear(inner, width, std=initial.fc2, stack=stack)

    def __call__(self, x: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        """`(batch, tokens, width)` -> the same."""
        config, heads = self.config, self.config.num_attention_heads
        y = self.layer_norm1(x)
        y = attention(
            split_heads(self.query(y), heads),
            split_heads(self.key(y), heads),
            split_heads(self.value(y), heads),
            scale=(config.hidden_size // heads) ** -0.5,
            rate=config.attention_dropout,
            dropout_key=dropout_key,
        )
        x = x + self.out(merge_heads(y))
        return x + self.fc2(activation(config.hidden_act)(self.fc1(self.layer_norm2(x))))
