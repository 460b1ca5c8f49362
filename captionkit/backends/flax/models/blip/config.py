"""The configuration of a BLIP captioner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from captionkit.backends.flax.models.bert.config import BertConfig
from captionkit.backends.flax.models.config_file import TokenIds, token_ids
from captionkit.backends.flax.models.part_config import read_part
from captionkit.backends.flax.models.vit.config import ViTConfig
from captionkit.errors import CheckpointError

_ARCHITECTURE = "BlipForConditionalGeneration"
_TOKENS = {"bos_token_id": 30522, "sep_token_id": 102, "pad_token_id": 0}  # [DEC], [SEP], [PAD]
# of comparing images with texts, of transformers' own loss, and what the parts say of themselves
_WITHOUT_EFFECT = {
    "projection_dim", "logit_scale_init_value", "image_text_hidden_size", "label_smoothing",
    "initializer_factor", "initializer_range", "text_config", "vision_config",
}  # fmt: skip


@dataclass(frozen=True)
class BlipConfig:
    """The image encoder, the text decoder, and the tokens that start, end and pad a caption.

    source: config.json as it was read, to be written again.
    """

    vision: ViTConfig
    text: BertConfig
    token_ids: TokenIds
    source: str = field(repr=False, compare=False)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        where: str,
        generation: Mapping[str, Any] | None = None,
    ) -> BlipConfig:
        """From a Hugging Face config. What ends a caption is its separator.

        generation_config.json does not count: in files of transformers its end token is one that
        BLIP never gives.
        """
        architectures = values.get("architectures") or [_ARCHITECTURE]
        if _ARCHITECTURE not in architectures:
            raise CheckpointError(
                f"{where}: this BLIP is a {', '.join(map(str, architectures))}, which gives no "
                f"captions. Use a {_ARCHITECTURE}, such as Salesforce/blip-image-captioning-base."
            )
        fixed = {"tie_word_embeddings": True}
        read_part(values, where, {}, fixed=fixed, without_effect=_WITHOUT_EFFECT)
        vision = ViTConfig.of_blip(_part(values, "vision_config", where), f"{where}, vision_config")
        values_of_text = _part(values, "text_config", where)
        named = {**_TOKENS, **values_of_text}
        named["eos_token_id"] = named["sep_token_id"]
        return cls(
            vision,
            BertConfig.of_blip(values_of_text, f"{where}, text_config", vision.hidden_size),
            token_ids((named,), f"{where}, text_config", ("bos_token_id",), None),
            json.dumps(values),
        )

    @property
    def text_limit(self) -> int:
        """The longest caption in tokens, start and end included."""
        return self.text.max_position_embeddings

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.vision.image_size

    @staticmethod
    def for_tokens(
        values: dict[str, Any], vocab_size: int, start: int, end: int, pad: int
    ) -> dict[str, Any]:
        """config.json with vocabulary size and special ids, for a model made from scratch."""
        tokens = {"bos_token_id": start, "sep_token_id": end, "eos_token_id": end}
        text = {**(values.get("text_config") or {}), **tokens, "pad_token_id": pad}
        return values | {"text_config": text | {"vocab_size": vocab_size}}


def _part(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    part = values.get(name) or {}
    if not isinstance(part, dict):
        raise CheckpointError(f"{where}: {name}={part!r} should hold options by name.")
    return part
