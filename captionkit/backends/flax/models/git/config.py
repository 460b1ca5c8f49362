"""The configuration of a GIT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from captionkit.backends.flax.models.bert.config import BertConfig
from captionkit.backends.flax.models.clip.config import CLIPVisionConfig
from captionkit.backends.flax.models.config_file import TokenIds, token_ids
from captionkit.errors import CheckpointError

_START, _END = 101, 102  # BERT's [CLS] and [SEP]


@dataclass(frozen=True)
class GitConfig:
    """The image encoder, the text layers, and the tokens that start, end and pad a caption.

    source: config.json as it was read, to be written again.
    """

    vision: CLIPVisionConfig
    text: BertConfig
    token_ids: TokenIds
    source: str = field(repr=False, compare=False)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        where: str,
        generation: Mapping[str, Any] | None = None,
    ) -> GitConfig:
        """From a Hugging Face config, and generation_config.json, whose token ids go first."""
        if (frames := values.get("num_image_with_embedding")) is not None:
            raise CheckpointError(
                f"{where}: this GIT takes {frames} video frames (num_image_with_embedding="
                f"{frames!r}); captionkit captions single images. Use an image variant, such as "
                "microsoft/git-base or microsoft/git-base-coco."
            )
        vision = values.get("vision_config") or {}
        if not isinstance(vision, dict):
            raise CheckpointError(f"{where}: vision_config={vision!r} should hold options by name.")
        text = {name: value for name, value in values.items() if name != "vision_config"}
        named = {"pad_token_id": 0, **values}  # null: there is none
        return cls(
            CLIPVisionConfig.of_git(vision, f"{where}, vision_config"),
            BertConfig.of_git(text, where),
            token_ids((generation or {}, named), where, ("bos_token_id",), (_START, _END)),
            json.dumps(values),
        )

    @property
    def text_limit(self) -> int:
        """The longest caption in tokens: its positions are counted apart from the image's."""
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
        tokens = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}
        return values | {"vocab_size": vocab_size} | tokens
