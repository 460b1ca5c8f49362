"""The weights of the whole model: those of its parts, and the projection between them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy

from captionkit.backends.flax.models.convert import (
    Row,
    prefixed,
    renamed,
    without_tied_head,
)
from captionkit.backends.flax.models.vision_encoder_decoder.config import Config
from captionkit.backends.flax.models.vision_encoder_decoder.parts import DECODERS, ENCODERS
from captionkit.tensor_names import canonical

_PROJECTION = [
    Row("enc_to_dec_proj.weight", "enc_to_dec_proj.kernel", "transpose"),
    Row("enc_to_dec_proj.bias", "enc_to_dec_proj.bias"),
]


def table(config: Config) -> list[Row]:
    """The rows of this configuration."""
    encoder = ENCODERS[config.encoder_type].table(config.encoder)
    decoder = DECODERS[config.decoder_type].table(config.decoder)
    return [
        *prefixed(encoder, "encoder.", "encoder."),
        *prefixed(decoder, "decoder.", "decoder."),
        *(_PROJECTION if config.projects else []),
    ]


def known_names(
    tensors: Mapping[str, numpy.ndarray], config: Config, where: str
) -> Mapping[str, numpy.ndarray]:
    """The tensors of a file under the names of the table, those on the ignore lists left out."""
    known = renamed(tensors, partial(_known_name, config), where)
    if not config.decoder.tie_word_embeddings:
        return known
    part = DECODERS[config.decoder_type]
    return without_tied_head(
        known, f"decoder.{part.head}", f"decoder.{part.embedding}", where,
        'under "decoder" in config.json',
    )  # fmt: skip


def _known_name(config: Config, name: str) -> str | None:
    part, _, rest = name.partition(".")
    kinds = {"encoder": config.encoder_type, "decoder": config.decoder_type}
    if part not in kinds:
        return name
    known = canonical(rest, kinds[part])
    return None if known is None else f"{part}.{known}"
