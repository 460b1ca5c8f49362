"""The configuration of an image encoder joined to a text decoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captionkit.backends.flax.models.gpt2.config import GPT2Config
from captionkit.backends.flax.models.part_config import read_part
from captionkit.backends.flax.models.vit.config import ViTConfig
from captionkit.errors import CheckpointError

_ENCODERS, _DECODERS = ("vit", "deit"), ("gpt2",)
# the embeddings are tied by the decoder's own option
_WITHOUT_EFFECT = {"encoder", "decoder", "tie_word_embeddings", "vocab_size"}


@dataclass(frozen=True)
class Config:
    """What the model is made of, and the tokens that start, end and pad a caption.

    source: config.json as it was read, to be written again.
    """

    encoder: ViTConfig
    decoder: GPT2Config
    decoder_start_token_id: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    source: str = field(repr=False, compare=False)

    @property
    def projects(self) -> bool:
        """Whether a linear layer brings the encoder's width to the decoder's."""
        return self.encoder.hidden_size != self.decoder.n_embd

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        where: str,
        generation: Mapping[str, Any] | None = None,
    ) -> Config:
        """From a Hugging Face config, and generation_config.json, whose token ids go first."""
        parts = {name: _part(values, name, where) for name in ("encoder", "decoder")}
        for name, supported in (("encoder", _ENCODERS), ("decoder", _DECODERS)):
            if parts[name].get("model_type") not in supported:
                raise CheckpointError(
                    f"{where}: an {name} of type {parts[name].get('model_type')!r} is not "
                    f"supported by the Flax backend. Supported: {', '.join(supported)}."
                )
        read_part(values, where, {}, without_effect=_WITHOUT_EFFECT)
        decoder = GPT2Config.from_dict(parts["decoder"], f"{where}, decoder")
        places = (generation or {}, values, parts["decoder"])
        start = _first(places, "decoder_start_token_id", "bos_token_id")
        eos = _first(places, "eos_token_id")
        ends = tuple(eos) if isinstance(eos, (list, tuple)) else (eos,)
        if None in (start, *ends):
            # GPT-2's own
            start = 50256 if start is None else start
            ends = tuple(50256 if end is None else end for end in ends)
        pad = _first(places, "pad_token_id")
        pad = ends[0] if pad is None else pad
        for name, token in (("start", start), ("end", ends[0]), ("padding", pad)):
            if isinstance(token, bool) or not isinstance(token, int):
                raise CheckpointError(f"{where}: the {name} token {token!r} is not a token id.")
        return cls(
            ViTConfig.from_dict(parts["encoder"], f"{where}, encoder"),
            decoder,
            start,
            ends,
            pad,
            json.dumps(values),
        )

    @classmethod
    def from_folder(cls, folder: Path) -> Config:
        """From `config.json` and `generation_config.json`. Raises CheckpointError."""
        generation = folder / "generation_config.json"
        return cls.from_dict(
            _read(folder / "config.json"),
            str(folder / "config.json"),
            _read(generation) if generation.is_file() else None,
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} should hold options by name.")
    return values


def _part(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    part = values.get(name)
    if not isinstance(part, dict):
        raise CheckpointError(f"{where} has no part {name!r} with the config of the {name}.")
    return part


def _first(places: tuple[Mapping[str, Any], ...], *names: str) -> Any:
    for name in names:
        for place in places:
            if place.get(name) is not None:
                return place[name]
    return None
