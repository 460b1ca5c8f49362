"""An image encoder and a text decoder that attends to it (Li et al. 2021, arXiv:2109.10282)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.gpt2.modeling import GPT2
from captionkit.backends.flax.models.layers import Linear
from captionkit.backends.flax.models.vision_encoder_decoder.config import Config
from captionkit.backends.flax.models.vit.modeling import ViT


class VisionEncoderDecoder(nnx.Module):
    """Encoder, decoder and, where their widths differ, a projection between them."""

    def __init__(self, config: Config):
        self.encoder = ViT(config.encoder)
        self.decoder = GPT2(config.decoder)
        if config.projects:
            widths = (config.encoder.hidden_size, config.decoder.n_embd)
            self.enc_to_dec_proj = Linear(*widths, std=config.decoder.initializer_range)
        self.projects = config.projects

    def encode(
        self,
        pixel_values: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
        dtype: jnp.dtype = jnp.float32,
        remat: bool = False,
        unroll: bool = False,
    ) -> jax.Array:
        """`(batch, height, width, 3)` -> `(batch, tokens, decoder width)` in `dtype`."""
        x = self.encoder(
            pixel_values, dropout_key=dropout_key, dtype=dtype, remat=remat, unroll=unroll
        )
        return self.enc_to_dec_proj(x) if self.projects else x
