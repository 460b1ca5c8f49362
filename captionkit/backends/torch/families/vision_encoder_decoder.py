"""Any image encoder with a text decoder that attends to it: ViT-GPT2, SigLIP-BERT, TrOCR, ..."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput

from captionkit.data.captions import special_ids
from captionkit.errors import CheckpointError

OWN_START = True  # behind the decoder's, where that is another, as in TrOCR

# Cross-attention reads the last hidden states: what comes after them is not needed, nor is what
# stands for a masked patch.
_UNUSED = {
    "clip_vision_model": ("encoder.*post_layernorm.*",),  # SigLIP's comes before
    "siglip_vision_model": ("encoder.*head.*",),
}
_UNUSED_ELSEWHERE = ("encoder.pooler.*", "encoder.embeddings.mask_token")

# Encoders that take images of the size in their config alone.
_ONE_SIZE = ("vit", "deit", "clip_vision_model", "siglip_vision_model")

# Decoders that count their positions from after the padding token.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "data2vec-text")


def auto_class() -> Any:
    """The transformers class that loads the model."""
    return AutoModelForImageTextToText


def check_config(config: PretrainedConfig) -> None:
    """Refuse decoders that would not look at the image."""
    decoder = config.decoder
    if not _attends_to_images(decoder):
        raise CheckpointError(
            f"The decoder of this model ({decoder.model_type}) has no cross-attention in "
            "transformers, so it cannot see the image. GPT-2, BERT and RoBERTa can, and so can the "
            "decoders of BART, MBART and TrOCR."
        )
    flags = {name: getattr(decoder, name, False) for name in ("is_decoder", "add_cross_attention")}
    if not all(flags.values()):
        raise CheckpointError(
            f"The decoder of this model ({decoder.model_type}) has no cross-attention "
            f"({', '.join(f'{name}={value}' for name, value in flags.items())}), so it cannot see "
            "the image. Both must be true in the decoder part of config.json."
        )


def unused(config: PretrainedConfig) -> tuple[str, ...]:
    """Tensors of the encoder that no caption depends on."""
    return _UNUSED.get(config.encoder.model_type, _UNUSED_ELSEWHERE)


def text_limit(config: PretrainedConfig) -> int:
    """The decoder's positions."""
    positions = int(config.decoder.max_position_embeddings)
    if config.decoder.model_type in _OFFSET_POSITIONS:
        positions -= config.decoder.pad_token_id + 1
    return positions


def set_token_ids(config: PretrainedConfig, tokenizer: Any) -> None:
    """Vocabulary size and special ids, for a model made from scratch."""
    start, end, padding = special_ids(tokenizer)
    config.decoder.vocab_size = len(tokenizer)
    config.decoder_start_token_id = start
    for part in (config, config.decoder):
        part.bos_token_id, part.eos_token_id, part.pad_token_id = start, end, padding


def set_generation(model: Any) -> None:
    """What the checkpoint says is right."""


def start_id(model: Any) -> int | None:
    """The decoder's start token, from the generation config or the model's."""
    for config in (model.generation_config, model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if getattr(config, name, None) is not None:
                return int(getattr(config, name))
    raise CheckpointError(
        "Neither generation_config.json nor config.json has a decoder_start_token_id, so it is not "
        "known what the decoder starts from. Set it in both."
    )


def image_size(config: PretrainedConfig) -> tuple[int, int] | None:
    """(height, width) in pixels; None for encoders that interpolate, or that we do not know."""
    if config.encoder.model_type not in _ONE_SIZE:
        return None
    size = config.encoder.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def encode(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """The encoder's last hidden states, `(batch, positions, width)`."""
    return model.encoder(pixel_values=pixel_values).last_hidden_state


def logits(
    model: Any,
    pixel_values: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    hidden_states: torch.Tensor | None = None,
) -> torch.Tensor:
    """Next-token logits, `(batch, length, vocab)`."""
    output = model(
        **_image(pixel_values, hidden_states),
        decoder_input_ids=input_ids,
        decoder_attention_mask=mask,
        use_cache=False,
    )
    return output.logits


def generate(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    hidden_states: torch.Tensor | None = None,
    prefix: torch.Tensor | None = None,
    **settings: Any,
) -> Any:
    """Generation starts from the decoder's start token, or from a prefix."""
    if prefix is not None:
        settings["decoder_input_ids"] = prefix
    return model.generate(**_image(pixel_values, hidden_states), **settings)


def _attends_to_images(decoder: PretrainedConfig) -> bool:
    """Whether transformers' class for a decoder takes encoded images."""
    if type(decoder) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return True  # code that came with the checkpoint: transformers will say
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(decoder)]
    return "encoder_hidden_states" in inspect.signature(model_class.forward).parameters


def _image(pixel_values: torch.Tensor, hidden_states: torch.Tensor | None) -> dict[str, Any]:
    if hidden_states is None:
        return {"pixel_values": pixel_values}
    return {"encoder_outputs": BaseModelOutput(last_hidden_state=hidden_states)}
