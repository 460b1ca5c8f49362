"""The weights of CLIP's image encoder: names in model.safetensors, parameters, transforms."""

from __future__ import annotations

from captionkit.backends.flax.models.clip.config import CLIPVisionConfig
from captionkit.backends.flax.models.convert import Row


def table(config: CLIPVisionConfig) -> list[Row]:
    """The rows; they are the same for every configuration."""
    return _ROWS


_LAYER = "encoder.layers.{}"
_ROWS = [
    Row("embeddings.class_embedding", "class_embedding"),
    Row("embeddings.patch_embedding.weight", "patch_embedding.kernel", "conv"),
    Row("embeddings.position_embedding.weight", "position_embedding"),
    Row("pre_layrnorm.weight", "pre_layernorm.scale"),  # so they are spelt
    Row("pre_layrnorm.bias", "pre_layernorm.bias"),
    Row(f"{_LAYER}.layer_norm1.weight", "layers.layer_norm1.scale"),
    Row(f"{_LAYER}.layer_norm1.bias", "layers.layer_norm1.bias"),
    Row(f"{_LAYER}.self_attn.q_proj.weight", "layers.query.kernel", "transpose"),
    Row(f"{_LAYER}.self_attn.q_proj.bias", "layers.query.bias"),
    Row(f"{_LAYER}.self_attn.k_proj.weight", "layers.key.kernel", "transpose"),
    Row(f"{_LAYER}.self_attn.k_proj.bias", "layers.key.bias"),
    Row(f"{_LAYER}.self_attn.v_proj.weight", "layers.value.kernel", "transpose"),
    Row(f"{_LAYER}.self_attn.v_proj.bias", "layers.value.bias"),
    Row(f"{_LAYER}.self_attn.out_proj.weight", "layers.out.kernel", "transpose"),
    Row(f"{_LAYER}.self_attn.out_proj.bias", "layers.out.bias"),
    Row(f"{_LAYER}.layer_norm2.weight", "layers.layer_norm2.scale"),
    Row(f"{_LAYER}.layer_norm2.bias", "layers.layer_norm2.bias"),
    Row(f"{_LAYER}.mlp.fc1.weight", "layers.fc1.kernel", "transpose"),
    Row(f"{_LAYER}.mlp.fc1.bias", "layers.fc1.bias"),
    Row(f"{_LAYER}.mlp.fc2.weight", "layers.fc2.kernel", "transpose"),
    Row(f"{_LAYER}.mlp.fc2.bias", "layers.fc2.bias"),
    Row("post_layernorm.weight", "post_layernorm.scale"),
    Row("post_layernorm.bias", "post_layernorm.bias"),
]
