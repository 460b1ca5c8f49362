"""The configuration of CLIP's image encoder, and of GIT's, which is the same network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.part_config import check_heads, check_sizes, read_part

_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "quick_gelu",
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
    "image_size": 224,
    "patch_size": 32,
}
_FIXED = {"is_decoder": False, "add_cross_attention": False, "num_channels": 3}
# dropout was written by old versions and read by none; the projection is to the space that CLIP
# shares with text
_WITHOUT_EFFECT = {"dropout", "projection_dim", "tie_word_embeddings"}


@dataclass(frozen=True)
class InitialStds:
    """Standard deviations of the first weights."""

    class_embedding: float
    patches: float
    positions: float
    query_key_value: float
    attention_out: float
    fc1: float
    fc2: float


@dataclass(frozen=True)
class CLIPVisionConfig:
    """The names are those of `transformers.CLIPVisionConfig`; images are square.

    normalise_all: whether the last normalisation is of every token, as in GIT, or only of the
        pooled one, which captioning does not use.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    attention_dropout: float
    layer_norm_eps: float
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    initial: InitialStds
    normalise_all: bool = False
    num_channels: int = 3

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> CLIPVisionConfig:
        """From the Hugging Face config of `CLIPVisionModel`. Raises CheckpointError."""
        read = _read(values, where, {**_DEFAULTS, "initializer_factor": 1.0}, _WITHOUT_EFFECT)
        factor, std = read.pop("initializer_factor"), read.pop("initializer_range")
        width = read["hidden_size"]
        into = (2 * width * read["num_hidden_layers"]) ** -0.5 * factor
        initial = InitialStds(
            class_embedding=width**-0.5 * factor,
            patches=std * factor,
            positions=std * factor,
            query_key_value=into,
            attention_out=width**-0.5 * factor,
            fc1=(2 * width) ** -0.5 * factor,
            fc2=into,
        )
        return cls(**read, initial=initial)

    @classmethod
    def of_git(cls, values: Mapping[str, Any], where: str) -> CLIPVisionConfig:
        """From the `vision_config` of a GIT. Raises CheckpointError."""
        without_effect = {*_WITHOUT_EFFECT, "initializer_factor"}
        read = _read(values, where, {**_DEFAULTS, "patch_size": 16}, without_effect)
        std = read.pop("initializer_range")
        return cls(**read, initial=InitialStds(*[std] * 7), normalise_all=True)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; pixels beyond the last whole patch are not seen."""
        side = self.image_size[0] // self.patch_size[0]
        return side, side

    @property
    def tokens(self) -> int:
        """Length of the encoded image: class token, patches."""
        return 1 + self.grid[0] * self.grid[1]


def _read(
    values: Mapping[str, Any], where: str, defaults: dict[str, Any], without_effect: set[str]
) -> dict[str, Any]:
    read = read_part(values, where, defaults, fixed=_FIXED, without_effect=without_effect)
    check_sizes(where, read, "hidden_size", "num_hidden_layers", "num_attention_heads")
    check_sizes(where, read, "intermediate_size", "image_size", "patch_size")
    check_heads(where, read["hidden_size"], read["num_attention_heads"])
    activation(read["hidden_act"])
    for name in ("image_size", "patch_size"):
        read[name] = (read[name], read[name])
    return read
