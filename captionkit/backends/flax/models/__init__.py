"""The models of the Flax backend: a folder each for definition, configuration and weight table.

A family module is what training and captioning see of a model: one `Family`, made of a
configuration, an NNX module, a table of weights and three functions for decoding step by step. To
add one: write a folder with these, and list it here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captionkit.backends.flax.models.family import Family

_MODULES = {"blip": "blip", "git": "git", "vision-encoder-decoder": "vision_encoder_decoder"}
MODEL_TYPES = frozenset(_MODULES)


def family_of(model_type: str) -> Family:
    """The family of a model type that `MODEL_TYPES` lists."""
    return importlib.import_module(f"{__name__}.{_MODULES[model_type]}").FAMILY
