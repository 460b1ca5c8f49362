"""The weights of GPT-2: names in model.safetensors, paths of parameters, transforms.

Its layers are `Conv1D`, whose weights are (inputs, outputs) in the file as here.
"""

from __future__ import annotations

from captionkit.backends.flax.models.convert import Row
from captionkit.backends.flax.models.gpt2.config import GPT2Config


def table(config: GPT2Config) -> list[Row]:
    """The rows of this configuration; tied embeddings are stored once."""
    return _ROWS if config.tie_word_embeddings else [*_ROWS, _HEAD]


_ROWS = [
    Row("transformer.wte.weight", "wte.embedding"),
    Row("transformer.wpe.weight", "wpe.embedding"),
    Row("transformer.h.{}.ln_1.weight", "h.ln_1.scale"),
    Row("transformer.h.{}.ln_1.bias", "h.ln_1.bias"),
    Row("transformer.h.{}.attn.c_attn.weight", "h.attn_qkv.kernel"),
    Row("transformer.h.{}.attn.c_attn.bias", "h.attn_qkv.bias"),
    Row("transformer.h.{}.attn.c_proj.weight", "h.attn_proj.kernel"),
    Row("transformer.h.{}.attn.c_proj.bias", "h.attn_proj.bias"),
    Row("transformer.h.{}.ln_cross_attn.weight", "h.ln_cross_attn.scale"),
    Row("transformer.h.{}.ln_cross_attn.bias", "h.ln_cross_attn.bias"),
    Row("transformer.h.{}.crossattention.q_attn.weight", "h.cross_query.kernel"),
    Row("transformer.h.{}.crossattention.q_attn.bias", "h.cross_query.bias"),
    Row("transformer.h.{}.crossattention.c_attn.weight", "h.cross_kv.kernel"),
    Row("transformer.h.{}.crossattention.c_attn.bias", "h.cross_kv.bias"),
    Row("transformer.h.{}.crossattention.c_proj.weight", "h.cross_proj.kernel"),
    Row("transformer.h.{}.crossattention.c_proj.bias", "h.cross_proj.bias"),
    Row("transformer.h.{}.ln_2.weight", "h.ln_2.scale"),
    Row("transformer.h.{}.ln_2.bias", "h.ln_2.bias"),
    Row("transformer.h.{}.mlp.c_fc.weight", "h.mlp_fc.kernel"),
    Row("transformer.h.{}.mlp.c_fc.bias", "h.mlp_fc.bias"),
    Row("transformer.h.{}.mlp.c_proj.weight", "h.mlp_proj.kernel"),
    Row("transformer.h.{}.mlp.c_proj.bias", "h.mlp_proj.bias"),
    Row("transformer.ln_f.weight", "ln_f.scale"),
    Row("transformer.ln_f.bias", "ln_f.bias"),
]
_HEAD = Row("lm_head.weight", "lm_head.embedding")
