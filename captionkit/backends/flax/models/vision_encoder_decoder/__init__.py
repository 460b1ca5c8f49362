"""An image encoder with a text decoder that attends to it: ViT-GPT2 and its relatives."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from captionkit.backends.flax.models.family import Family, Weights
from captionkit.backends.flax.models.vision_encoder_decoder.config import Config
from captionkit.backends.flax.models.vision_encoder_decoder.modeling import VisionEncoderDecoder
from captionkit.backends.flax.models.vision_encoder_decoder.parts import (
    DECODERS,
    ENCODERS,
    Decoder,
)
from captionkit.backends.flax.models.vision_encoder_decoder.weights import known_names, table


def decoder_layers(graphdef: nnx.GraphDef, params: dict[str, Any]) -> list[Any]:
    """See `Family`: by the decoder's own function."""
    return _decoder(graphdef, params).decoder_layers(graphdef, params)


def start_decoding(
    graphdef: nnx.GraphDef, weights: Weights, states: jax.Array, lanes: int, length: int
) -> tuple[Any, Any]:
    """See `Family`: by the decoder's own function."""
    decoder = _decoder(graphdef, weights.params)
    return decoder.start_decoding(graphdef, weights, states, lanes, length)


def decode_step(
    graphdef: nnx.GraphDef, prepared: Any, cache: Any, tokens: jax.Array, position: jax.Array
) -> tuple[jax.Array, Any]:
    """See `Family`: by the decoder's own function."""
    decoder = _decoder(graphdef, prepared.weights.params)
    return decoder.decode_step(graphdef, prepared, cache, tokens, position)


def _decoder(graphdef: nnx.GraphDef, params: dict[str, Any]) -> Decoder:
    return DECODERS[nnx.merge(graphdef, params).config.decoder_type]


FAMILY = Family(
    model_type="vision-encoder-decoder",
    architecture="VisionEncoderDecoderModel",
    config=Config,
    module=VisionEncoderDecoder,
    table=table,
    known_names=known_names,
    decoder_layers=decoder_layers,
    start_decoding=start_decoding,
    decode_step=decode_step,
    untrained=tuple(
        sorted({f"encoder.{name}" for part in ENCODERS.values() for name in part.untrained})
    ),
)
