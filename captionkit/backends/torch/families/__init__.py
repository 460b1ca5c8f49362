"""One small adapter a model family: how images and token ids become its inputs.

To add a family: write a module with the functions of `Family`, and list it here.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import torch
from transformers import PretrainedConfig, PreTrainedModel

_MODULES = {"blip": "blip", "git": "git", "vision-encoder-decoder": "vision_encoder_decoder"}


class Family(Protocol):
    """What an adapter module provides."""

    OWN_START: bool
    """Whether captions keep the start tokens that the tokenizer gives them."""

    def auto_class(self) -> Any:
        """The transformers class that loads the model (`from_pretrained`, `from_config`)."""

    def check_config(self, config: PretrainedConfig) -> None:
        """Raise CheckpointError for a variant that is not an image captioner."""

    def unused(self, config: PretrainedConfig) -> Sequence[str]:
        """Patterns of tensors that no caption depends on: a checkpoint may lack them."""

    def text_limit(self, config: PretrainedConfig) -> int:
        """The longest caption in tokens, start and end included."""

    def set_token_ids(self, config: PretrainedConfig, tokenizer: Any) -> None:
        """Write vocabulary size and special ids into the config of a model made from scratch."""

    def set_generation(self, model: Any) -> None:
        """Correct the special tokens in the generation config of a model, where it has others."""

    def image_size(self, config: PretrainedConfig) -> tuple[int, int] | None:
        """(height, width) in pixels that the image encoder takes; None: any will do."""

    def start_id(self, model: Any) -> int | None:
        """The token that every caption starts from, or None: the tokenizer puts it there."""

    def encode(self, model: Any, pixel_values: torch.Tensor) -> torch.Tensor | None:
        """What does not depend on the text, `(batch, ...)`, to be computed once an image.

        None where image and text go through the model together.
        """

    def logits(
        self,
        model: Any,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        mask: torch.Tensor,
        hidden_states: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Teacher-forced next-token logits, `(batch, length, vocab)`, for text positions only.

        pixel_values: `(batch, channels, height, width)`; input_ids, mask: `(batch, length)`;
        hidden_states: what `encode` gave for these images, if it was called.
        `model` may be wrapped (DDP, compile): only its call may be used.
        """

    def generate(
        self,
        model: PreTrainedModel,
        pixel_values: torch.Tensor,
        hidden_states: torch.Tensor | None = None,
        prefix: torch.Tensor | None = None,
        **settings: Any,
    ) -> Any:
        """The output of `model.generate`; `sequences` start with the tokens before the first.

        prefix: `(batch, length)`, the start token and what else the captions begin with; None: the
        start token alone.
        """


def family_of(model_type: str) -> ModuleType:
    """The adapter of a model type that `TorchBackend.model_types` lists."""
    return importlib.import_module(f"{__name__}.{_MODULES[model_type]}")
