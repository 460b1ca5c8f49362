"""The names that checkpoints of encoders and decoders give their tensors, brought to one form.

That form is what transformers writes into `model.safetensors` for the bare ViT and for GPT-2 with
its head: `encoder.layer.0.attention.attention.query.weight`, `transformer.h.0.attn.c_attn.weight`.
Files that were written from memory by transformers 5, from a model with another head, or from a
bare GPT-2 have other names, and old ones hold tensors that are no weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_VIT_RENAMES = [
    (r"^(?:vit|deit)\.", ""),  # image classifiers hold the encoder under its name
    # transformers 5 in memory
    (r"^layers\.(\d+)\.attention\.q_proj\.", r"encoder.layer.\1.attention.attention.query."),
    (r"^layers\.(\d+)\.attention\.k_proj\.", r"encoder.layer.\1.attention.attention.key."),
    (r"^layers\.(\d+)\.attention\.v_proj\.", r"encoder.layer.\1.attention.attention.value."),
    (r"^layers\.(\d+)\.attention\.o_proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^layers\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^layers\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"^layers\.(\d+)\.(layernorm_before|layernorm_after)\.", r"encoder.layer.\1.\2."),
]
_GPT2_RENAMES = [(r"^(h\.\d+|wte|wpe|ln_f)\.", r"transformer.\1.")]

# No weights of a captioner: heads of other tasks, the token of masked-image training, and the
# causal masks that GPT-2 files held before transformers 4.31.
_VIT_IGNORED = [
    r"(?:classifier|cls_classifier|distillation_classifier|decoder)\..*",
    r"embeddings\.mask_token",
]
_GPT2_IGNORED = [
    r"transformer\.h\.\d+\.(?:attn|crossattention)\.(?:bias|masked_bias)",
    r"(?:score|classifier|multiple_choice_head)\..*",
]

_RENAMES = {"vit": _VIT_RENAMES, "deit": _VIT_RENAMES, "gpt2": _GPT2_RENAMES}
_IGNORED = {"vit": _VIT_IGNORED, "deit": _VIT_IGNORED, "gpt2": _GPT2_IGNORED}


def canonical(name: str, model_type: str) -> str | None:
    """The one form of a tensor's name in a checkpoint of `vit`, `deit` or `gpt2`.

    None for a tensor on the ignore list; names that are not known are returned as they are.
    """
    for pattern, replacement in _RENAMES[model_type]:
        name = re.sub(pattern, replacement, name)
    if any(re.fullmatch(pattern, name) for pattern in _IGNORED[model_type]):
        return None
    return name


def vit_names(config: Mapping[str, Any]) -> Iterator[str]:
    """The canonical names of all tensors of a ViT or DeiT, from its config."""
    yield from ("embeddings.cls_token", "embeddings.position_embeddings")
    if config.get("model_type") == "deit":
        yield "embeddings.distillation_token"
    modules = ["embeddings.patch_embeddings.projection", "layernorm", "pooler.dense"]
    for layer in range(config.get("num_hidden_layers", 12)):
        modules += [f"encoder.layer.{layer}.{name}" for name in _VIT_LAYER]
    for module in modules:
        yield f"{module}.weight"
        if ".attention.attention." not in module or config.get("qkv_bias", True):
            yield f"{module}.bias"


def gpt2_names(config: Mapping[str, Any]) -> Iterator[str]:
    """The canonical names of all tensors of a GPT-2 with cross-attention, from its config."""
    yield from ("transformer.wte.weight", "transformer.wpe.weight")
    if not config.get("tie_word_embeddings", True):
        yield "lm_head.weight"
    modules = ["transformer.ln_f"]
    for layer in range(config.get("n_layer", 12)):
        modules += [f"transformer.h.{layer}.{name}" for name in _GPT2_LAYER]
    for module in modules:
        yield from (f"{module}.weight", f"{module}.bias")


_VIT_LAYER = (
    "layernorm_before", "attention.attention.query", "attention.attention.key",
    "attention.attention.value", "attention.output.dense", "layernorm_after",
    "intermediate.dense", "output.dense",
)  # fmt: skip
_GPT2_LAYER = (
    "ln_1", "attn.c_attn", "attn.c_proj", "ln_cross_attn", "crossattention.q_attn",
    "crossattention.c_attn", "crossattention.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj",
)  # fmt: skip
