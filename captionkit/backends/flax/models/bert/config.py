"""The configuration of BERT's layers: GIT's, and those of a decoder with cross-attention."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from captionkit.backends.flax.models.activations import activation
from captionkit.backends.flax.models.part_config import check_heads, check_sizes, read_part

_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
_DECODER = {"is_decoder": True, "add_cross_attention": True, "tie_word_embeddings": True}
# of the heads of other tasks
_WITHOUT_EFFECT = {"classifier_dropout", "directionality", "pooler_fc_size", "pooler_num_fc_layers",
                   "pooler_num_attention_heads", "pooler_size_per_head", "pooler_type"}  # fmt: skip
_WITHOUT_EFFECT_IN_BLIP = {"add_cross_attention", "cross_attention_hidden_size",
                           "encoder_hidden_size", "initializer_factor", "label_smoothing",
                           "projection_dim"}  # fmt: skip
# of transformers 4: only one way of adding positions is still in use
_FIXED = {"position_embedding_type": "absolute"}


@dataclass(frozen=True)
class BertConfig:
    """The names are those of `transformers.BertConfig`.

    type_vocab_size: 0 where segments are not told apart. encoder_hidden_size: the width of the
    encoded image that every layer attends to; 0: none does.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    max_position_embeddings: int
    initializer_range: float
    layer_norm_eps: float
    pad_token_id: int | None
    tie_word_embeddings: bool
    type_vocab_size: int = 0
    encoder_hidden_size: int = 0

    @classmethod
    def of_git(cls, values: Mapping[str, Any], where: str) -> BertConfig:
        """From the Hugging Face config of a GIT, without its `vision_config`."""
        defaults = {
            "num_hidden_layers": 6, "max_position_embeddings": 1024, "tie_word_embeddings": False,
        }  # fmt: skip
        fixed = {"is_decoder": False, "add_cross_attention": False}
        return cls(**_read(values, where, {**_DEFAULTS, **defaults}, fixed))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> BertConfig:
        """From the Hugging Face config of a BERT decoder. Raises CheckpointError."""
        # with these two absent transformers would make a decoder that sees no image
        values = {"is_decoder": False, "add_cross_attention": False, **values}
        fixed: dict[str, Any] = {**_DECODER, "cross_attention_hidden_size": None}
        if values.get("cross_attention_hidden_size") is not None:
            fixed["cross_attention_hidden_size"] = values.get("hidden_size", 768)
        defaults = {**_DEFAULTS, "type_vocab_size": 2}
        read = _read(values, where, defaults, fixed, _WITHOUT_EFFECT)
        check_sizes(where, read, "type_vocab_size")
        return cls(**read, encoder_hidden_size=read["hidden_size"])

    @classmethod
    def of_blip(cls, values: Mapping[str, Any], where: str, encoder_hidden_size: int) -> BertConfig:
        """From the `text_config` of a BLIP. Raises CheckpointError.

        encoder_hidden_size: of its image encoder, whatever `text_config` says.
        """
        defaults = {
            "vocab_size": 30524, "num_attention_heads": 8, "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }  # fmt: skip
        fixed = {"is_decoder": True, "tie_word_embeddings": True}
        read = _read(values, where, {**_DEFAULTS, **defaults}, fixed, _WITHOUT_EFFECT_IN_BLIP)
        return cls(**read, encoder_hidden_size=encoder_hidden_size)

    @property
    def attention_scale(self) -> float:
        """What attention logits are multiplied by."""
        return (self.hidden_size // self.num_attention_heads) ** -0.5


def _read(
    values: Mapping[str, Any],
    where: str,
    defaults: Mapping[str, Any],
    fixed: Mapping[str, Any],
    without_effect: Collection[str] = (),
) -> dict[str, Any]:
    # a padding token may be null
    values = {"pad_token_id": defaults["pad_token_id"], **values}
    nullable = {**defaults, "pad_token_id": values["pad_token_id"]}
    read = read_part(
        values, where, nullable, fixed={**_FIXED, **fixed}, without_effect=without_effect
    )
    check_sizes(where, read, "vocab_size", "hidden_size", "num_hidden_layers")
    check_sizes(where, read, "num_attention_heads", "intermediate_size", "max_position_embeddings")
    check_heads(where, read["hidden_size"], read["num_attention_heads"])
    activation(read["hidden_act"])
    return read
