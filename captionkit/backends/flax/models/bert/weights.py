"""The weights of BERT: names in model.safetensors, paths of parameters, transforms."""

from __future__ import annotations

from captionkit.backends.flax.models.bert.config import BertConfig
from captionkit.backends.flax.models.convert import Row, prefixed


def linear(hf: str, flax: str) -> list[Row]:
    """The two tensors of a linear layer."""
    return [
        Row(f"{hf}.weight", f"{flax}.kernel", "transpose"),
        Row(f"{hf}.bias", f"{flax}.bias"),
    ]


def norm(hf: str, flax: str) -> list[Row]:
    """The two tensors of a layer normalisation."""
    return [Row(f"{hf}.weight", f"{flax}.scale"), Row(f"{hf}.bias", f"{flax}.bias")]


EMBEDDINGS = [
    Row("word_embeddings.weight", "word.embedding"),
    Row("position_embeddings.weight", "position.embedding"),
    *norm("LayerNorm", "norm"),
]
_SEGMENTS = [Row("bert.embeddings.token_type_embeddings.weight", "embeddings.segment")]
LAYER = [
    *linear("attention.self.query", "query"),
    *linear("attention.self.key", "key"),
    *linear("attention.self.value", "value"),
    *linear("attention.output.dense", "attention_out"),
    *norm("attention.output.LayerNorm", "attention_norm"),
    *linear("intermediate.dense", "intermediate"),
    *linear("output.dense", "output"),
    *norm("output.LayerNorm", "output_norm"),
]
CROSS_ATTENTION = [
    *linear("crossattention.self.query", "cross_query"),
    *linear("crossattention.self.key", "cross_key"),
    *linear("crossattention.self.value", "cross_value"),
    *linear("crossattention.output.dense", "cross_out"),
    *norm("crossattention.output.LayerNorm", "cross_norm"),
]


def decoder_table(config: BertConfig) -> list[Row]:
    """The rows of BERT as a decoder; its output is tied to the embeddings, and stored once."""
    return [
        *prefixed(EMBEDDINGS, "bert.embeddings.", "embeddings."),
        *(_SEGMENTS if config.type_vocab_size else []),
        *prefixed([*LAYER, *CROSS_ATTENTION], "bert.encoder.layer.{}.", "layers."),
        *linear("cls.predictions.transform.dense", "transform"),
        *norm("cls.predictions.transform.LayerNorm", "transform_norm"),
        Row("cls.predictions.bias", "output_bias"),
    ]
