"""The weights of the whole model: those of its parts, and the projection between them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy

from captionkit.backends.flax.models.convert import Renamed, Row, prefixed, renamed
from captionkit.backends.flax.models.gpt2 import weights as gpt2
from captionkit.backends.flax.models.vision_encoder_decoder.config import Config
from captionkit.backends.flax.models.vit import weights as vit
from captionkit.errors import CheckpointError
from captionkit.tensor_names import canonical

_PROJECTION = [
    Row("enc_to_dec_proj.weight", "enc_to_dec_proj.kernel", "transpose"),
    Row("enc_to_dec_proj.bias", "enc_to_dec_proj.bias"),
]
_HEAD, _EMBEDDING = "decoder.lm_head.weight", "decoder.transformer.wte.weight"


def table(config: Config) -> list[Row]:
    """The rows of this configuration."""
    return [
        *prefixed(vit.table(config.encoder), "encoder.", "encoder."),
        *prefixed(gpt2.table(config.decoder), "decoder.", "decoder."),
        *(_PROJECTION if config.projects else []),
    ]


def known_names(
    tensors: Mapping[str, numpy.ndarray], config: Config, where: str
) -> Mapping[str, numpy.ndarray]:
    """The tensors of a file under the names of the table, those on the ignore lists left out."""
    tensors = renamed(tensors, partial(_known_name, config), where)
    if not config.decoder.tie_word_embeddings or _HEAD not in tensors:
        return tensors
    # one matrix under two names; a file may hold it under either, or under both
    if _EMBEDDING in tensors and not numpy.array_equal(tensors[_EMBEDDING], tensors[_HEAD]):
        raise CheckpointError(
            f"In {where} {_HEAD} differs from {_EMBEDDING}, but its config says that they are one "
            'matrix. Set "tie_word_embeddings": false under "decoder" in config.json if both are '
            "meant."
        )
    names = {name: tensors.names[name] for name in tensors if name != _HEAD}
    names.setdefault(_EMBEDDING, tensors.names[_HEAD])
    return Renamed(tensors.tensors, names)


def _known_name(config: Config, name: str) -> str | None:
    part, _, rest = name.partition(".")
    kinds = {"encoder": "deit" if config.encoder.distillation_token else "vit", "decoder": "gpt2"}
    if part not in kinds:
        return name
    known = canonical(rest, kinds[part])
    return None if known is None else f"{part}.{known}"
