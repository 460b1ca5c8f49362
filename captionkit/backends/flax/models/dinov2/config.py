"""The configuration of a DINOv2 encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.part_config import check_heads, check_sizes, read_part
from captionkit.errors import CheckpointError

_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 14,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
    "use_mask_token": True,
}
_FIXED = {
    "is_decoder": False, "add_cross_attention": False, "num_channels": 3, "drop_path_rate": 0.0,
}  # fmt: skip
# of its use as a backbone that gives maps of features
_WITHOUT_EFFECT = {
    "apply_layernorm", "out_features", "out_indices", "reshape_hidden_states", "stage_names",
    "tie_word_embeddings",
}  # fmt: skip


@dataclass(frozen=True)
class Dinov2Config:
    """The names are those of `transformers.Dinov2Config`.

    learned_size: `image_size` there, of the square images that the position embeddings were learned
    with; for images of another size they are interpolated.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    mlp_ratio: float
    hidden_act: str
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    initializer_range: float
    layer_norm_eps: float
    learned_size: int
    patch_size: int
    qkv_bias: bool
    layerscale_value: float
    use_swiglu_ffn: bool
    use_mask_token: bool

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Dinov2Config:
        """From the Hugging Face config of a DINOv2. Raises CheckpointError."""
        read = read_part(values, where, _DEFAULTS, fixed=_FIXED, without_effect=_WITHOUT_EFFECT)
        check_sizes(where, read, "hidden_size", "num_hidden_layers", "num_attention_heads")
        check_sizes(where, read, "image_size", "patch_size")
        check_heads(where, read["hidden_size"], read["num_attention_heads"])
        activation(read["hidden_act"])
        read["learned_size"] = read.pop("image_size")
        config = cls(**read)
        if config.inner < 1:
            raise CheckpointError(f"{where}: mlp_ratio={config.mlp_ratio!r} is too small.")
        return config

    @property
    def image_size(self) -> None:
        """Images of any size are taken."""

    @property
    def inner(self) -> int:
        """Width of the perceptron; of a gated one each half is two thirds as wide."""
        width = int(self.hidden_size * self.mlp_ratio)
        return (int(width * 2 / 3) + 7) // 8 * 8 if self.use_swiglu_ffn else width

    @property
    def side(self) -> int:
        """Rows, and columns, of patches that the position embeddings were learned with."""
        return self.learned_size // self.patch_size
