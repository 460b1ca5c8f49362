"""The encoders and decoders that a model may be joined of, one entry a model type.

To add one: write a folder with its configuration, its module, its table of weights and, for a
decoder, one step of decoding; list it here, and its names in `captionkit.tensor_names`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx

from captionkit.backends.flax.models.bert import decoding as bert_decoding
from captionkit.backends.flax.models.bert.config import BertConfig
from captionkit.backends.flax.models.bert.modeling import BertDecoder
from captionkit.backends.flax.models.bert.weights import decoder_table as bert_table
from captionkit.backends.flax.models.clip.config import CLIPVisionConfig
from captionkit.backends.flax.models.clip.modeling import CLIPVision
from captionkit.backends.flax.models.clip.weights import table as clip_table
from captionkit.backends.flax.models.convert import Table
from captionkit.backends.flax.models.dinov2.config import Dinov2Config
from captionkit.backends.flax.models.dinov2.modeling import Dinov2
from captionkit.backends.flax.models.dinov2.weights import table as dinov2_table
from captionkit.backends.flax.models.gpt2 import decoding as gpt2_decoding
from captionkit.backends.flax.models.gpt2.config import GPT2Config
from captionkit.backends.flax.models.gpt2.modeling import GPT2
from captionkit.backends.flax.models.gpt2.weights import table as gpt2_table
from captionkit.backends.flax.models.vit.config import ViTConfig
from captionkit.backends.flax.models.vit.modeling import ViT
from captionkit.backends.flax.models.vit.weights import table as vit_table

FromDict = Callable[[Mapping[str, Any], str], Any]


@dataclass(frozen=True)
class Encoder:
    """An image encoder.

    config: `(values, where)` -> its configuration, with `hidden_size` and `image_size`, (height,
        width) or None for any. module: pixels `(batch, height, width, 3)` -> `(batch, tokens,
        hidden_size)`. untrained: patterns of its tensors that no caption depends on.
    """

    config: FromDict
    module: Callable[[Any], nnx.Module]
    table: Callable[[Any], Table]
    untrained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoder:
    """A text decoder with cross-attention.

    config: `(values, where)` -> its configuration, with `hidden_size`, `vocab_size`,
        `max_position_embeddings`, `initializer_range` and `tie_word_embeddings`.
    module: ids `(batch, length)`, mask and encoded images -> logits.
    head, embedding: the names of one matrix where input and output embeddings are tied.
    start_end: the tokens that start and end a text where no config says.
    decoder_layers, start_decoding, decode_step: see `Family`.
    """

    config: FromDict
    module: Callable[[Any], nnx.Module]
    table: Callable[[Any], Table]
    head: str
    embedding: str
    start_end: tuple[int, int]
    decoder_layers: Callable[..., list[Any]]
    start_decoding: Callable[..., Any]
    decode_step: Callable[..., Any]


ENCODERS = {
    "vit": Encoder(ViTConfig.from_dict, ViT, vit_table, ("pooler.*",)),
    "deit": Encoder(ViTConfig.from_dict, ViT, vit_table, ("pooler.*",)),
    "clip_vision_model": Encoder(
        CLIPVisionConfig.from_dict, CLIPVision, clip_table, ("post_layernorm.*",)
    ),
    "dinov2": Encoder(Dinov2Config.from_dict, Dinov2, dinov2_table, ("embeddings.mask_token",)),
}
DECODERS = {
    "gpt2": Decoder(
        GPT2Config.from_dict, GPT2, gpt2_table, "lm_head.weight", "transformer.wte.weight",
        (50256, 50256), gpt2_decoding.decoder_layers, gpt2_decoding.start_decoding,
        gpt2_decoding.decode_step,
    ),
    "bert": Decoder(
        BertConfig.from_dict, BertDecoder, bert_table, "cls.predictions.decoder.weight",
        "bert.embeddings.word_embeddings.weight", (101, 102),
        bert_decoding.decoder_layers, bert_decoding.start_decoding, bert_decoding.decode_step,
    ),
}  # fmt: skip
