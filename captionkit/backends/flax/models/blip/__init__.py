"""BLIP: an image encoder and a text decoder that attends to it, of one checkpoint."""

from captionkit.backends.flax.models.bert.decoding import (
    decode_step,
    decoder_layers,
    start_decoding,
)
from captionkit.backends.flax.models.blip.config import BlipConfig
from captionkit.backends.flax.models.blip.modeling import Blip
from captionkit.backends.flax.models.blip.weights import known_names, table
from captionkit.backends.flax.models.family import Family

FAMILY = Family(
    model_type="blip",
    architecture="BlipForConditionalGeneration",
    config=BlipConfig,
    module=Blip,
    table=table,
    known_names=known_names,
    decoder_layers=decoder_layers,
    start_decoding=start_decoding,
    decode_step=decode_step,
    own_start=False,
)
