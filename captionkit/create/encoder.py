"""The image encoder of a model to be made: all its tensors as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from captionkit.create.part import Part, Tensors, check_layers, normal, read_tensors


@dataclass(frozen=True)
class Encoder:
    """A type of image encoder.

    prefix: see `read_tensors`. depths: see `check_layers`, from the config. spare: tensors that no
    caption depends on, which loaders look for all the same, for files without them.
    fixed_size: whether it takes images of one size only.
    """

    prefix: str
    depths: Callable[[Any], Mapping[str, int]]
    spare: Callable[[Part, int], Tensors] = lambda part, seed: {}
    fixed_size: bool = True


def encoder_tensors(part: Part, seed: int) -> Tensors:
    """The encoder's tensors by their names in it. Raises CheckpointError."""
    kind = ENCODERS[part.kind]
    tensors = read_tensors(part, kind.prefix)
    check_layers(part, tensors, kind.depths(part.config))
    return {**kind.spare(part, seed), **tensors}


def _pooler(part: Part, seed: int) -> Tensors:
    """Image classifiers have none."""
    width = part.config.hidden_size
    pooled = getattr(part.config, "pooler_output_size", None) or width
    return {
        "pooler.dense.weight": normal("pooler", (pooled, width), part.std, seed),
        "pooler.dense.bias": numpy.zeros(pooled, numpy.float32),
    }


def _pooler_norm(part: Part, seed: int) -> Tensors:
    """Files of masked-image training have none."""
    if not part.config.use_mean_pooling:
        return {}
    width = part.config.hidden_size
    return {
        "pooler.layernorm.weight": numpy.ones(width, numpy.float32),
        "pooler.layernorm.bias": numpy.zeros(width, numpy.float32),
    }


def _layer(config: Any) -> dict[str, int]:
    return {"encoder.layer": config.num_hidden_layers}


def _layers(config: Any) -> dict[str, int]:
    return {"encoder.layers": config.num_hidden_layers}


def _stages(config: Any) -> dict[str, int]:
    return {f"encoder.layers.{i}.blocks": depth for i, depth in enumerate(config.depths)}


ENCODERS = {
    "vit": Encoder("vit.", _layer, _pooler),
    "deit": Encoder("deit.", _layer, _pooler),
    "beit": Encoder("beit.", _layer, _pooler_norm),
    "dinov2": Encoder("dinov2.", _layer, fixed_size=False),
    "swin": Encoder("swin.", _stages, fixed_size=False),
    "clip_vision_model": Encoder("vision_model.", _layers),
    "siglip_vision_model": Encoder("vision_model.", _layers),
}
