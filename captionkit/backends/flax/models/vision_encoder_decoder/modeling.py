"""An image encoder and a text decoder that attends to it (Li et al. 2021, arXiv:2109.10282)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.layers import Linear
from captionkit.backends.flax.models.vision_encoder_decoder.config import Config
from captionkit.backends.flax.models.vision_encoder_decoder.parts import DECODERS, ENCODERS


class VisionEncoderDecoder(nnx.Module):
    """Encoder, decoder and, where their widths differ, a projection between them."""

    def __init__(self, config: Config):
        self.config = config
        self.encoder = ENCODERS[config.encoder_type].module(config.encoder)
        self.decoder = DECODERS[config.decoder_type].module(config.decoder)
        if config.projects:
            widths = (config.encoder.hidden_size, config.decoder.hidden_size)
            self.enc_to_dec_proj = Linear(*widths, std=config.decoder.initializer_range)

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
        return self.enc_to_dec_proj(x) if self.config.projects else x

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
