"""The configuration of an image encoder joined to a text decoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from captionkit.backends.flax.models.config_file import TokenIds, token_ids
from captionkit.backends.flax.models.part_config import read_part
from captionkit.backends.flax.models.vision_encoder_decoder.parts import DECODERS, ENCODERS
from captionkit.errors import CheckpointError

# the embeddings are tied by the decoder's own option
_WITHOUT_EFFECT = {"encoder", "decoder", "tie_word_embeddings", "vocab_size"}


@dataclass(frozen=True)
class Config:
    """What the model is made of, and the tokens that start, end and pad a caption.

    encoder_type, decoder_type: keys of `ENCODERS` and `DECODERS`. source: config.json as it was
    read, to be written again.
    """

    encoder_type: str
    decoder_type: str
    encoder: Any
    decoder: Any
    token_ids: TokenIds
    source: str = field(repr=False, compare=False)

    @property
    def projects(self) -> bool:
        """Whether a linear layer brings the encoder's width to the decoder's."""
        return bool(self.encoder.hidden_size != self.decoder.hidden_size)

    @property
    def text_limit(self) -> int:
        """The longest caption in tokens, start and end included."""
        return int(self.decoder.max_position_embeddings)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels that the image encoder was made for; None: any will do."""
        size: tuple[int, int] | None = self.encoder.image_size
        return size

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        where: str,
        generation: Mapping[str, Any] | None = None,
    ) -> Config:
        """From a Hugging Face config, and generation_config.json, whose token ids go first."""
        parts = {name: _part(values, name, where) for name in ("encoder", "decoder")}
        kinds: dict[str, Any] = {name: part.get("model_type") for name, part in parts.items()}
        for name, supported in (("encoder", [*ENCODERS]), ("decoder", [*DECODERS])):
            if kinds[name] not in supported:
                raise CheckpointError(
                    f"{where}: an {name} of type {kinds[name]!r} is not supported by the Flax "
                    f"backend. Supported: {', '.join(supported)}."
                )
        read_part(values, where, {}, without_effect=_WITHOUT_EFFECT)
        encoder, decoder = ENCODERS[kinds["encoder"]], DECODERS[kinds["decoder"]]
        decoder_config = decoder.config(parts["decoder"], f"{where}, decoder")
        starts = ("decoder_start_token_id", "bos_token_id")
        places = (generation or {}, values, parts["decoder"])
        return cls(
            kinds["encoder"],
            kinds["decoder"],
            encoder.config(parts["encoder"], f"{where}, encoder"),
            decoder_config,
            token_ids(places, where, starts, decoder.start_end),
            json.dumps(values),
        )

    @staticmethod
    def for_tokens(
        values: dict[str, Any], vocab_size: int, start: int, end: int, pad: int
    ) -> dict[str, Any]:
        """config.json with vocabulary size and special ids, for a model made from scratch."""
        tokens = {"eos_token_id": end, "pad_token_id": pad}
        decoder = values["decoder"] | tokens | {"bos_token_id": start, "vocab_size": vocab_size}
        return values | tokens | {"decoder_start_token_id": start, "decoder": decoder}


def _part(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    part = values.get(name)
    if not isinstance(part, dict):
        raise CheckpointError(f"{where} has no part {name!r} with the config of the {name}.")
    return part
