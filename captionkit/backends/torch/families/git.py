"""GIT (Wang et al. 2022, arXiv:2205.14100): image tokens and text in one causal sequence."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from captionkit.backends.torch.families.git_text import GitText, image_keys_values, text_states
from captionkit.data.captions import special_ids
from captionkit.errors import CheckpointError

OWN_START = True


def auto_class() -> Any:
    """The transformers class that loads the model."""
    return AutoModelForCausalLM


def check_config(config: PretrainedConfig) -> None:
    """Refuse the video variants, which take several frames, and relative positions."""
    if config.num_image_with_embedding is not None:
        raise CheckpointError(
            f"This GIT checkpoint takes {config.num_image_with_embedding} video frames "
            "(num_image_with_embedding); captionkit captions single images. Use an image variant, "
            "such as microsoft/git-base or microsoft/git-base-coco."
        )
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions != "absolute":  # transformers 5 no longer has another, and no published GIT does
        raise CheckpointError(
            f"This GIT checkpoint has position_embedding_type={positions!r}; only 'absolute' is "
            "supported."
        )


def unused(config: PretrainedConfig) -> tuple[str, ...]:
    """Every tensor has a part in a caption."""
    return ()


def text_limit(config: PretrainedConfig) -> int:
    """Text positions are counted apart from the image's."""
    return int(config.max_position_embeddings)


def set_token_ids(config: PretrainedConfig, tokenizer: Any) -> None:
    """Vocabulary size and special ids, for a model made from scratch."""
    config.vocab_size = len(tokenizer)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = special_ids(tokenizer)


def set_generation(model: Any) -> None:
    """What the checkpoint says is right."""


def image_size(config: PretrainedConfig) -> tuple[int, int]:
    """(height, width) in pixels."""
    return config.vision_config.image_size, config.vision_config.image_size


def start_id(model: Any) -> int | None:
    """[CLS], which BERT's tokenizer puts before each caption already."""
    start = model.generation_config.bos_token_id
    return None if start is None else int(start)


def encode(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Keys and values of the image tokens, `(batch, layers, 2, heads, tokens, head width)`."""
    return image_keys_values(model, pixel_values)


def logits(
    model: Any,
    pixel_values: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor,
    hidden_states: torch.Tensor | None = None,
) -> torch.Tensor:
    """Next-token logits at the text positions, `(batch, length, vocab)`."""
    if hidden_states is not None:
        return model.output(text_states(model.git, hidden_states, input_ids, mask))
    length = input_ids.shape[1]
    settings = {}
    if _can_keep_text_logits():
        # the vocabulary is not computed at the image positions, several times as many as the text's
        settings["logits_to_keep"] = length
    output = model(
        pixel_values=pixel_values,
        input_ids=input_ids,
        attention_mask=mask,
        use_cache=False,
        **settings,
    )
    return output.logits[:, -length:]


def generate(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    hidden_states: torch.Tensor | None = None,
    prefix: torch.Tensor | None = None,
    **settings: Any,
) -> Any:
    """Generation starts from the start token, or from a prefix."""
    if hidden_states is None:
        hidden_states = encode(model, pixel_values)
    if prefix is None:
        start = model.generation_config.bos_token_id
        prefix = torch.full((len(hidden_states), 1), start, device=hidden_states.device)
    return GitText(model, hidden_states).generate(input_ids=prefix, **settings)


def _can_keep_text_logits() -> bool:
    from transformers import GitForCausalLM  # transformers 4.57 has no logits_to_keep here

    return "logits_to_keep" in inspect.signature(GitForCausalLM.forward).parameters
