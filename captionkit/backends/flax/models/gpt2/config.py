"""The configuration of a GPT-2 decoder with cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.part_config import check_heads, check_sizes, read_part

_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_FIXED = {"is_decoder": True, "add_cross_attention": True}
# n_ctx is an old name of n_positions that no version reads; reorder_and_upcast_attn computes
# attention weights in float32 also under mixed precision, which is what is done here anyway
_WITHOUT_EFFECT = {
    "n_ctx", "reorder_and_upcast_attn", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj",
}  # fmt: skip


@dataclass(frozen=True)
class GPT2Config:
    """The names are those of `transformers.GPT2Config`."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    activation_function: str
    resid_pdrop: float
    embd_pdrop: float
    attn_pdrop: float
    layer_norm_epsilon: float
    initializer_range: float
    scale_attn_weights: bool
    scale_attn_by_inverse_layer_idx: bool
    tie_word_embeddings: bool

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> GPT2Config:
        """From the Hugging Face config of a GPT-2 decoder. Raises CheckpointError."""
        # with these two absent transformers would make a decoder that sees no image
        values = {"is_decoder": False, "add_cross_attention": False, **values}
        width = values.get("cross_attention_hidden_size")
        fixed = _FIXED | {"cross_attention_hidden_size": values.get("n_embd", 768)}
        read = read_part(
            values, where, _DEFAULTS, aliases=_ALIASES,
            fixed=fixed if width is not None else {**_FIXED, "cross_attention_hidden_size": None},
            without_effect=_WITHOUT_EFFECT,
        )  # fmt: skip
        check_sizes(where, read, "vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        read["n_inner"] = read["n_inner"] or 4 * read["n_embd"]
        check_sizes(where, read, "n_inner")
        check_heads(where, read["n_embd"], read["n_head"])
        activation(read["activation_function"])
        return cls(**read)

    @property
    def hidden_size(self) -> int:
        """As `n_embd`, by the name that decoders share."""
        return self.n_embd

    @property
    def max_position_embeddings(self) -> int:
        """As `n_positions`, by the name that decoders share."""
        return self.n_positions

    @property
    def attention_scale(self) -> float:
        """What attention logits are multiplied by, apart from the layer's own share."""
        return (self.n_embd // self.n_head) ** -0.5 if self.scale_attn_weights else 1.0
