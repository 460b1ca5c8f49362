"""Loading and initialising models; a checkpoint that does not fit is a CheckpointError."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, set_seed

from captionkit.backends.torch.families import family_of
from captionkit.errors import CheckpointError
from captionkit.freezing import matching
from captionkit.models import has_weights
from captionkit.tensors import weights_do_not_fit

# in files of older versions: constants that are no weights
_BUFFERS = ("position_ids", ".attn.bias", ".attn.masked_bias", ".crossattention.masked_bias",
            ".crossattention.bias")  # fmt: skip


def load_model(folder: Path, trust_remote_code: bool = False) -> Any:
    """The model of a checkpoint folder, fp32, in evaluation mode, every tensor accounted for."""
    config = _config(folder, trust_remote_code)
    family = family_of(config.model_type)
    family.check_config(config)
    if not has_weights(folder):
        raise CheckpointError(
            f"{folder} holds a config but no weights (model.safetensors, its shards, or "
            "pytorch_model.bin). Give a folder that was trained, or finetune from this config."
        )
    try:
        model, info = family.auto_class().from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed, and refused below
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # the readers of its many forms raise anything
        raise CheckpointError(
            f"The model in {folder} cannot be loaded: {_first_lines(error)}"
        ) from error
    _check_complete(folder, info, family.unused(config))
    family.set_generation(model)
    return model.eval()


def new_model(folder: Path, tokenizer: Any, seed: int, trust_remote_code: bool = False) -> Any:
    """A model with random weights, from the config in a folder that holds no weights."""
    config = _config(folder, trust_remote_code)
    family = family_of(config.model_type)
    family.check_config(config)
    family.set_token_ids(config, tokenizer)
    set_seed(seed)
    model = family.auto_class().from_config(
        config, dtype=torch.float32, trust_remote_code=trust_remote_code
    )
    family.set_generation(model)
    return model


def named_as_saved(model: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters by their names in model.safetensors; transformers 5 has others in memory."""
    parameters: dict[str, Any] = dict(model.named_parameters())
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # transformers 4: the same names
        return parameters
    saved = revert_weight_conversion(model, parameters)
    names: dict[int, str] = {id(tensor): str(name) for name, tensor in saved.items()}
    # a tensor that saving also reshapes or joins keeps its name in memory
    return {names.get(id(tensor), name): tensor for name, tensor in parameters.items()}


def _config(folder: Path, trust_remote_code: bool) -> Any:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"There is no checkpoint in {folder}: no config.json.")
    try:
        return AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # each model's config checks its fields in its own way
        raise CheckpointError(
            f"{folder}/config.json cannot be used: {_first_lines(error)}"
        ) from None


def _check_complete(folder: Path, info: dict[str, Any], unused: Sequence[str]) -> None:
    lacked = set(info.get("missing_keys", ()))
    unknown = {name for name in info.get("unexpected_keys", ()) if not name.endswith(_BUFFERS)}
    missing, unexpected = (names - matching(names, unused) for names in (lacked, unknown))
    mismatched = [
        # transformers 4 gives the names alone
        f"{of[0]} is {tuple(of[1])} instead of {tuple(of[2])}" if isinstance(of, tuple) else str(of)
        for of in info.get("mismatched_keys", ())
    ]
    if missing or mismatched or unexpected:
        error = weights_do_not_fit(folder, missing, unexpected, mismatched)
        if transformers.__version__.startswith("4."):
            error = CheckpointError(
                f"{error} In transformers {transformers.__version__} parts other than ViT, DeiT "
                "and GPT-2 have other names: with such a model, upgrade to transformers 5."
            )
        raise error


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4]) or type(error).__name__
