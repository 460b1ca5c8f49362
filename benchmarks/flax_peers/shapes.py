"""The models and batches that all contestants get."""

from __future__ import annotations

from typing import Any

import numpy as np

VOCABULARY, START, LENGTH = 50257, 50256, 32
NO_END = VOCABULARY  # no token has this id, so that captions have their full length on all sides


def parts(size: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """ViT and GPT-2 options: "base" is ViT-B/16 + GPT-2, "small" ViT-S/16 + GPT-2 of 6 layers."""
    if size == "base":
        return {}, {}
    vit = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    return vit, {"n_embd": 384, "n_head": 6, "n_layer": 6}


def batch(rows: int) -> dict[str, np.ndarray]:
    """Pixels `(rows, 224, 224, 3)` uint8, ids, targets and mask `(rows, LENGTH)`; no padding."""
    draw = np.random.default_rng(0)
    ids = draw.integers(0, VOCABULARY, (rows, LENGTH + 1)).astype(np.int32)
    ids[:, 0] = START
    return {
        "pixels": draw.integers(0, 256, (rows, 224, 224, 3), dtype=np.uint8),
        "input_ids": ids[:, :-1],
        "targets": ids[:, 1:],
        "mask": np.ones((rows, LENGTH), np.int32),
    }
