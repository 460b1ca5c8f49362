"""The models of the Flax backend: a folder each for definition, configuration and weight table.

A family module is what training and captioning see of a model. It offers `config_of`, `abstract`,
`init_params`, `load_params`, `save_params`, `tensor_names`, `UNTRAINED`, `apply`, `encode`,
`decode`, `start_decoding`, `decode_step`, `text_limit`, `image_size`, `token_ids` and
`for_tokenizer`; `vision_encoder_decoder/__init__.py` documents each. To add a family: write a
folder with these, and list it here.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = {"vision-encoder-decoder": "vision_encoder_decoder"}
MODEL_TYPES = frozenset(_MODULES)


def family_of(model_type: str) -> ModuleType:
    """The family module of a model type that `MODEL_TYPES` lists."""
    return importlib.import_module(f"{__name__}.{_MODULES[model_type]}")
