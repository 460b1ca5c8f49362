"""BLIP captioning (Li et al. 2022, arXiv:2201.12086): a ViT, and a BERT that attends to it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel

from captionkit.data.captions import special_ids
from captionkit.errors import CheckpointError

OWN_START = False  # captions start from [DEC], which stands in the place of the tokenizer's [CLS]


def auto_class() -> Any:
    """The transformers class that loads the model."""
    return AutoModelForImageTextToText


def check_config(config: PretrainedConfig) -> None:
    """Refuse the heads of other tasks, which have weights of other names."""
    architectures = config.architectures or ["BlipForConditionalGeneration"]
    if "BlipForConditionalGeneration" not in architectures:
        raise CheckpointError(
            f"This BLIP checkpoint is a {', '.join(architectures)}, which gives no captions. Use a "
            "BlipForConditionalGeneration, such as Salesforce/blip-image-captioning-base."
        )


def unused(config: PretrainedConfig) -> tuple[str, ...]:
    """Every tensor has a part in a caption."""
    return ()


def text_limit(config: PretrainedConfig) -> int:
    """The text decoder's positions."""
    return int(config.text_config.max_position_embeddings)


def set_token_ids(config: PretrainedConfig, tokenizer: Any) -> None:
    """Vocabulary size and special ids, for a model made from scratch."""
    text = config.text_config
    text.vocab_size = len(tokenizer)
    text.bos_token_id, text.sep_token_id, text.pad_token_id = special_ids(tokenizer)
    text.eos_token_id = text.sep_token_id


def set_generation(model: Any) -> None:
    """Captions end with the separator, whatever the files call the end token."""
    text, generation = model.config.text_config, model.generation_config
    generation.bos_token_id = text.bos_token_id
    generation.eos_token_id = text.sep_token_id
    generation.pad_token_id = text.pad_token_id


def image_size(config: PretrainedConfig) -> tuple[int, int]:
    """(height, width) in pixels."""
    size = config.vision_config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def start_id(model: Any) -> int:
    """[DEC], the start token of the text decoder."""
    return int(model.config.text_config.bos_token_id)


def encode(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """The image encoder's last hidden states, `(batch, positions, width)`."""
    return model.vision_model(pixel_values=pixel_values).last_hidden_state


def logits(
    model: Any,
    pixel_values: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    hidden_states: torch.Tensor | None = None,
) -> torch.Tensor:
    """Next-token logits, `(batch, length, vocab)`."""
    if hidden_states is None:
        output = model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=mask)
    else:
        output = model.text_decoder(
            input_ids=input_ids, attention_mask=mask, encoder_hidden_states=hidden_states
        )
    return output.logits


def generate(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    hidden_states: torch.Tensor | None = None,
    prefix: torch.Tensor | None = None,
    **settings: Any,
) -> Any:
    """Generation by the text decoder, from its start token or from a prefix.

    BLIP's own `generate` encodes the image anew, and drops the last token of a prefix.
    """
    if hidden_states is None:
        hidden_states = encode(model, pixel_values)
    if prefix is None:
        prefix = torch.full((len(hidden_states), 1), start_id(model), device=hidden_states.device)
    decoder = model.text_decoder
    own, decoder.generation_config = decoder.generation_config, model.generation_config
    try:
        return decoder.generate(
            input_ids=prefix,
            attention_mask=torch.ones_like(prefix),
            encoder_hidden_states=hidden_states,
            encoder_attention_mask=torch.ones(
                hidden_states.shape[:2], dtype=torch.long, device=hidden_states.device
            ),
            **settings,
        )
    finally:
        decoder.generation_config = own
