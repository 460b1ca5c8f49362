"""The configuration of a ViT or DeiT encoder, and of BLIP's, which differs in its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.part_config import (
    check_heads,
    check_sizes,
    read_part,
    size_pair,
)

_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "image_size": (224, 224),
    "patch_size": (16, 16),
    "num_channels": 3,
    "qkv_bias": True,
    "pooler_output_size": None,
}
_FIXED = {"is_decoder": False, "add_cross_attention": False, "num_channels": 3}
# what BLIP's has no options for
_AS_IN_BLIP: dict[str, Any] = {
    "hidden_dropout_prob": 0.0, "num_channels": 3, "qkv_bias": True, "pooler_output_size": 0,
    "distillation_token": False,
}  # fmt: skip
_WITHOUT_EFFECT_IN_BLIP = {"dropout", "initializer_factor", "projection_dim", "tie_word_embeddings"}
# of the pooler and of the head for masked images, which captioning does not use
_WITHOUT_EFFECT = {"encoder_stride", "pooler_act", "tie_word_embeddings"}


@dataclass(frozen=True)
class ViTConfig:
    """Sizes are (height, width) in pixels; the names are those of `transformers.ViTConfig`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    initializer_range: float
    layer_norm_eps: float
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    num_channels: int
    qkv_bias: bool
    pooler_output_size: int
    distillation_token: bool  # DeiT

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> ViTConfig:
        """From the Hugging Face config of a ViT or DeiT. Raises CheckpointError."""
        read = read_part(values, where, _DEFAULTS, fixed=_FIXED, without_effect=_WITHOUT_EFFECT)
        _check(read, where)
        read["pooler_output_size"] = read["pooler_output_size"] or read["hidden_size"]
        return cls(**read, distillation_token=values.get("model_type") == "deit")

    @classmethod
    def of_blip(cls, values: Mapping[str, Any], where: str) -> ViTConfig:
        """From the `vision_config` of a BLIP, whose images are square. Raises CheckpointError."""
        defaults = {name: value for name, value in _DEFAULTS.items() if name not in _AS_IN_BLIP}
        defaults |= {"image_size": 384, "patch_size": 16, "layer_norm_eps": 1e-5}
        read = read_part(
            values, where, {**defaults, "initializer_range": 1e-10},
            aliases={"attention_dropout": "attention_probs_dropout_prob"}, fixed=_FIXED,
            without_effect=_WITHOUT_EFFECT_IN_BLIP,
        )  # fmt: skip
        check_sizes(where, read, "image_size", "patch_size")
        _check(read, where)
        return cls(**read, **_AS_IN_BLIP)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; pixels beyond the last whole patch are not seen."""
        (height, width), (patch_height, patch_width) = self.image_size, self.patch_size
        return height // patch_height, width // patch_width

    @property
    def tokens(self) -> int:
        """Length of the encoded image: class token, distillation token, patches."""
        return 1 + self.distillation_token + self.grid[0] * self.grid[1]


def _check(read: dict[str, Any], where: str) -> None:
    """Refuse what cannot be, and make (height, width) of the sizes."""
    check_sizes(where, read, "hidden_size", "num_hidden_layers", "num_attention_heads")
    check_sizes(where, read, "intermediate_size")
    check_heads(where, read["hidden_size"], read["num_attention_heads"])
    activation(read["hidden_act"])
    for name in ("image_size", "patch_size"):
        read[name] = size_pair(read[name], where, name)
