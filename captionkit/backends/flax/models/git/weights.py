"""The weights of GIT: names in model.safetensors, paths of parameters, transforms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy

from captionkit.backends.flax.models.bert.weights import EMBEDDINGS, LAYER, linear, norm
from captionkit.backends.flax.models.clip import weights as clip
from captionkit.backends.flax.models.convert import (
    Row,
    prefixed,
    renamed,
    without_tied_head,
)
from captionkit.backends.flax.models.git.config import GitConfig
from captionkit.tensor_names import canonical

_HEAD, _EMBEDDING = "output.weight", "git.embeddings.word_embeddings.weight"
_PROJECTION = "git.visual_projection.visual_projection"


def table(config: GitConfig) -> list[Row]:
    """The rows of this configuration; tied embeddings are stored once."""
    last = config.text.num_hidden_layers - 1
    return [
        *prefixed(clip.table(config.vision), "git.image_encoder.vision_model.", "image_encoder."),
        *linear(f"{_PROJECTION}.0", "visual_projection"),
        *norm(f"{_PROJECTION}.1", "visual_norm"),
        *prefixed(EMBEDDINGS, "git.embeddings.", "embeddings."),
        *prefixed(LAYER, "git.encoder.layer.{}.", "layers."),
        *prefixed(LAYER, f"git.encoder.layer.{last}.", "last_layer."),
        *([] if config.text.tie_word_embeddings else [Row(_HEAD, "output.embedding")]),
        Row("output.bias", "output_bias"),
    ]


def known_names(
    tensors: Mapping[str, numpy.ndarray], config: GitConfig, where: str
) -> Mapping[str, numpy.ndarray]:
    """The tensors of a file under the names of the table, those on the ignore list left out."""
    known = renamed(tensors, lambda name: canonical(name, "git"), where)
    if not config.text.tie_word_embeddings:
        return known
    return without_tied_head(known, _HEAD, _EMBEDDING, where, "in config.json")
