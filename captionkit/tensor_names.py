"""The names that checkpoints of encoders and decoders give their tensors, brought to one form.

That form is what transformers writes into `model.safetensors` for the bare ViT and for GPT-2 with
its head: `encoder.layer.0.attention.attention.query.weight`, `transformer.h.0.attn.c_attn.weight`.
Files that were written from memory by transformers 5, from a model with another head, or from a
bare GPT-2 have other names, and old ones hold tensors that are no weights.
"""

from __future__ import annotations

import re

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
_CLIP_RENAMES = [(r"^vision_model\.", "")]  # a whole CLIP, and CLIPVisionModel of transformers 4
_DINOV2_RENAMES = [
    (r"^dinov2\.", ""),
    # transformers 5 in memory
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
]
_BERT_RENAMES = [
    (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),  # a bare BertModel
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),  # as the first files had it
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
]
_ROBERTA_RENAMES = [
    (r"^(embeddings|encoder|pooler)\.", r"roberta.\1."),  # a bare RobertaModel
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
]
_GIT_RENAMES = [
    # a bare GitModel
    (r"^(embeddings|image_encoder|encoder|visual_projection)\.", r"git.\1."),
    (r"^git\.image_encoder\.(?!vision_model\.)", "git.image_encoder.vision_model."),
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),  # as BERT's first files had it
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
]

_BLIP_RENAMES = [
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
]

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
_CLIP_IGNORED = [
    r"embeddings\.position_ids",
    r"text_model\..*", r"(?:visual|text)_projection\.weight", r"logit_scale", r"classifier\..*",
]  # fmt: skip
_DINOV2_IGNORED = [r"classifier\..*"]
_BERT_IGNORED = [
    r"bert\.embeddings\.(?:position_ids|token_type_ids)",
    r"bert\.pooler\..*", r"cls\.seq_relationship\..*", r"classifier\..*",
    r"cls\.predictions\.decoder\.bias",  # a second name of cls.predictions.bias
]  # fmt: skip
_ROBERTA_IGNORED = [
    r"roberta\.embeddings\.(?:position_ids|token_type_ids)",
    r"roberta\.pooler\..*", r"classifier\..*",
    r"lm_head\.decoder\.bias",  # a second name of lm_head.bias
]  # fmt: skip
_BLIP_IGNORED = [
    r"(?:text_decoder\.bert|vision_model)\.embeddings\.position_ids",
    r"text_decoder\.cls\.predictions\.decoder\.bias",  # a second name, as in BERT
]
# positions, which are no weights, in files of transformers 4.30 and before
_GIT_IGNORED = [r"git\.(?:image_encoder\.vision_model\.)?embeddings\.position_ids"]

_RENAMES = {
    "vit": _VIT_RENAMES, "deit": _VIT_RENAMES, "clip_vision_model": _CLIP_RENAMES,
    "dinov2": _DINOV2_RENAMES, "gpt2": _GPT2_RENAMES, "bert": _BERT_RENAMES, "git": _GIT_RENAMES,
    "blip": _BLIP_RENAMES,
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _ROBERTA_RENAMES),
}  # fmt: skip
_IGNORED = {
    "vit": _VIT_IGNORED, "deit": _VIT_IGNORED, "clip_vision_model": _CLIP_IGNORED,
    "dinov2": _DINOV2_IGNORED, "gpt2": _GPT2_IGNORED, "bert": _BERT_IGNORED, "git": _GIT_IGNORED,
    "blip": _BLIP_IGNORED,
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _ROBERTA_IGNORED),
}  # fmt: skip


def canonical(name: str, model_type: str) -> str | None:
    """The one form of a tensor's name in a checkpoint of this type (`vit`, `gpt2`, `git`, ...).

    None for a tensor on the ignore list; names that are not known are returned as they are.
    """
    for pattern, replacement in _RENAMES.get(model_type, ()):
        name = re.sub(pattern, replacement, name)
    if any(re.fullmatch(pattern, name) for pattern in _IGNORED.get(model_type, ())):
        return None
    return name
