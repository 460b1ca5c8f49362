"""The weights of BLIP: names in model.safetensors, paths of parameters, transforms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy

from captionkit.backends.flax.models.bert.weights import decoder_table, linear, norm
from captionkit.backends.flax.models.blip.config import BlipConfig
from captionkit.backends.flax.models.convert import Row, prefixed, renamed, without_tied_head
from captionkit.tensor_names import canonical

_HEAD = "text_decoder.cls.predictions.decoder.weight"
_EMBEDDING = "text_decoder.bert.embeddings.word_embeddings.weight"
_LAYER = "encoder.layers.{}"
_VISION = [
    Row("embeddings.class_embedding", "embeddings.cls_token"),
    Row("embeddings.position_embedding", "embeddings.position_embeddings"),
    Row("embeddings.patch_embedding.weight", "embeddings.patch_embeddings.kernel", "conv"),
    Row("embeddings.patch_embedding.bias", "embeddings.patch_embeddings.bias"),
    *norm(f"{_LAYER}.layer_norm1", "layers.layer_norm1"),
    *linear(f"{_LAYER}.self_attn.qkv", "layers.qkv"),
    *linear(f"{_LAYER}.self_attn.projection", "layers.projection"),
    *norm(f"{_LAYER}.layer_norm2", "layers.layer_norm2"),
    *linear(f"{_LAYER}.mlp.fc1", "layers.fc1"),
    *linear(f"{_LAYER}.mlp.fc2", "layers.fc2"),
    *norm("post_layernorm", "post_layernorm"),
]


def table(config: BlipConfig) -> list[Row]:
    """The rows of this configuration."""
    return [
        *prefixed(_VISION, "vision_model.", ""),
        *prefixed(decoder_table(config.text), "text_decoder.", "decoder."),
    ]


def known_names(
    tensors: Mapping[str, numpy.ndarray], config: BlipConfig, where: str
) -> Mapping[str, numpy.ndarray]:
    """The tensors of a file under the names of the table, those on the ignore list left out."""
    known = renamed(tensors, lambda name: canonical(name, "blip"), where)
    return without_tied_head(known, _HEAD, _EMBEDDING, where)
