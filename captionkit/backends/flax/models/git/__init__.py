"""GIT: a CLIP image encoder whose tokens are put before the text."""

from __future__ import annotations

from captionkit.backends.flax.models.family import Family
from captionkit.backends.flax.models.git.config import GitConfig
from captionkit.backends.flax.models.git.decoding import decode_step, decoder_layers, start_decoding
from captionkit.backends.flax.models.git.modeling import Git
from captionkit.backends.flax.models.git.weights import known_names, table

FAMILY = Family(
    model_type="git",
    architecture="GitForCausalLM",
    config=GitConfig,
    module=Git,
    table=table,
    known_names=known_names,
    decoder_layers=decoder_layers,
    start_decoding=start_decoding,
    decode_step=decode_step,
)
