"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193): a ViT that scales what its layers add.

It takes images of any size: its position embeddings are interpolated to the grid of patches.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy
from flax import nnx

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.dinov2.config import Dinov2Config
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


class Dinov2(nnx.Module):
    """Pixels to one vector a token, after the last normalisation."""

    def __init__(self, config: Dinov2Config):
        width, std = config.hidden_size, config.initializer_range
        self.config = config
        self.cls_token = parameter((1, 1, width), std)
        if config.use_mask_token:  # of masked-image training; kept, since files hold it
            self.mask_token = parameter((1, width))
        self.patch_embeddings = Patches((config.patch_size, config.patch_size), 3, width, std=std)
        self.position_embeddings = parameter((1, config.side**2 + 1, width), std)
        self.layers = Layer(config, stack=(config.num_hidden_layers,))
        self.layernorm = LayerNorm(width, epsilon=config.layer_norm_eps)

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
        config, keys = self.config, split_key(dropout_key, 2)
        patches = self.patch_embeddings(jnp.asarray(pixel_values, dtype))
        token = self.cls_token[...].astype(dtype)
        token = jnp.broadcast_to(token, (patches.shape[0], 1, config.hidden_size))
        x = jnp.concatenate([token, patches], axis=1)
        x = x + self._positions(*pixel_values.shape[1:3]).astype(dtype)
        x = dropout(x, config.hidden_dropout_prob, keys[0])
        layer_keys = None
        if dropout_key is not None:
            layer_keys = split_key(keys[1], config.num_hidden_layers)
        x = scan_layers(Layer.__call__, x, self.layers, layer_keys, remat=remat, unroll=unroll)
        return self.layernorm(x)

    def _positions(self, height: int, width: int) -> jax.Array:
        """`(1, tokens, hidden_size)` for an image of so many pixels."""
        side, patch = self.config.side, self.config.patch_size
        rows, columns = height // patch, width // patch
        positions = self.position_embeddings[...]
        if (rows, columns) == (side, side):
            return positions
        of_patches = positions[0, 1:].reshape(side, side, -1)
        of_patches = jnp.einsum(
            "rs,ct,std->rcd",
            bicubic_weights(side, rows),
            bicubic_weights(side, columns),
            of_patches,
        )
        of_patches = of_patches.reshape(1, rows * columns, -1)
        return jnp.concatenate([positions[:, :1], of_patches], axis=1)


def bicubic_weights(old: int, new: int) -> numpy.ndarray:
    """`(new, old)`: how interpolated values are put together from those on a line.

    Cubic convolution (Keys 1981) with a = -0.75 and pixel centres at halves, values beyond the ends
    being those at the ends: what torch's `interpolate(mode="bicubic")` computes.
    """
    a = -0.75
    centres = (numpy.arange(new) + 0.5) * old / new - 0.5
    first = numpy.floor(centres).astype(int)
    weights = numpy.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        x = numpy.abs(centres - (first + offset))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * (x**3 - 5 * x**2 + 8 * x - 4)
        source = numpy.clip(first + offset, 0, old - 1)
        numpy.add.at(weights, (numpy.arange(new), source), numpy.where(x <= 1, near, far))
    return weights.astype(numpy.float32)


class Layer(nnx.Module):
    """Attention, then a perceptron, each on normalised input, scaled and added to it."""

    def __init__(self, config: Dinov2Config, stack: tuple[int, ...]):
        width, std = config.hidden_size, config.initializer_range
        epsilon, inner = config.layer_norm_eps, config.inner
        self.config = config
        self.norm1 = LayerNorm(width, epsilon=epsilon, stack=stack)
        self.query = Linear(width, width, std=std, bias=config.qkv_bias, stack=stack)
        self.key = Linear(width, width, std=std, bias=config.qkv_bias, stack=stack)
        self.value = Linear(width, width, std=std, bias=config.qkv_bias, stack=stack)
        self.out = Linear(width, width, std=std, stack=stack)
        self.layer_scale1 = parameter((*stack, width), fill=config.layerscale_value)
        self.norm2 = LayerNorm(width, epsilon=epsilon, stack=stack)
        gates = 2 if config.use_swiglu_ffn else 1
        self.mlp_in = Linear(width, gates * inner, std=std, stack=stack)
        self.mlp_out = Linear(inner, width, std=std, stack=stack)
        self.layer_scale2 = parameter((*stack, width), fill=config.layerscale_value)

    def __call__(self, x: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        """`(batch, tokens, width)` -> the same."""
        config, heads = self.config, self.config.num_attention_heads
        y = self.norm1(x)
        y = attention(
            split_heads(self.query(y), heads),
            split_heads(self.key(y), heads),
            split_heads(self.value(y), heads),
            scale=(config.hidden_size // heads) ** -0.5,
            rate=config.attention_probs_dropout_prob,
            dropout_key=dropout_key,
        )
        x = x + self.out(merge_heads(y)) * self.layer_scale1[...].astype(x.dtype)

        y = self.mlp_in(self.norm2(x))
        if config.use_swiglu_ffn:  # Shazeer 2020, arXiv:2002.05202
            gate, y = jnp.split(y, 2, axis=-1)
            y = jax.nn.silu(gate) * y
        else:
            y = activation(config.hidden_act)(y)
        return x + self.mlp_out(y) * self.layer_scale2[...].astype(x.dtype)
