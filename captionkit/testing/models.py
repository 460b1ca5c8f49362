"""Tiny configurations of the families that we know, as their `config.json` says them."""

from __future__ import annotations

from typing import Any

_VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8, "initializer_range": 0.1,
}  # fmt: skip

GIT: dict[str, Any] = {
    "model_type": "git", "vision_config": dict(_VISION),
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 24, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
}  # fmt: skip

VIT_GPT2: dict[str, Any] = {
    "model_type": "vision-encoder-decoder", "is_encoder_decoder": True,
    "encoder": {"model_type": "vit", **_VISION},
    "decoder": {
        "model_type": "gpt2", "is_decoder": True, "add_cross_attention": True, "n_embd": 32,
        "n_layer": 2, "n_head": 2, "n_inner": 64, "n_positions": 24, "resid_pdrop": 0.1,
        "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.2,
    },
}  # fmt: skip

BLIP: dict[str, Any] = {
    "model_type": "blip", "vision_config": dict(_VISION),
    "text_config": {
        "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 24,
        "hidden_dropout_prob": 0.05, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1,
        "is_decoder": True,
    },
}  # fmt: skip
