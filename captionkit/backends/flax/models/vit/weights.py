"""The weights of ViT and DeiT: names in model.safetensors, paths of parameters, transforms."""

from __future__ import annotations

from captionkit.backends.flax.models.convert import Row
from captionkit.backends.flax.models.vit.config import ViTConfig


def table(config: ViTConfig) -> list[Row]:
    """The rows of this configuration."""
    rows = [*_EMBEDDINGS, *_LAYERS, *_REST]
    if config.distillation_token:
        rows.append(Row("embeddings.distillation_token", "embeddings.distillation_token"))
    if not config.qkv_bias:
        without = {f"layers.{name}.bias" for name in ("query", "key", "value")}
        rows = [row for row in rows if row.flax not in without]
    return rows


_PATCHES = "embeddings.patch_embeddings"
_EMBEDDINGS = [
    Row("embeddings.cls_token", "embeddings.cls_token"),
    Row("embeddings.position_embeddings", "embeddings.position_embeddings"),
    Row(f"{_PATCHES}.projection.weight", f"{_PATCHES}.kernel", "conv"),
    Row(f"{_PATCHES}.projection.bias", f"{_PATCHES}.bias"),
]

_LAYERS = [
    Row("encoder.layer.{}.layernorm_before.weight", "layers.layernorm_before.scale"),
    Row("encoder.layer.{}.layernorm_before.bias", "layers.layernorm_before.bias"),
    Row("encoder.layer.{}.attention.attention.query.weight", "layers.query.kernel", "transpose"),
    Row("encoder.layer.{}.attention.attention.query.bias", "layers.query.bias"),
    Row("encoder.layer.{}.attention.attention.key.weight", "layers.key.kernel", "transpose"),
    Row("encoder.layer.{}.attention.attention.key.bias", "layers.key.bias"),
    Row("encoder.layer.{}.attention.attention.value.weight", "layers.value.kernel", "transpose"),
    Row("encoder.layer.{}.attention.attention.value.bias", "layers.value.bias"),
    Row("encoder.layer.{}.attention.output.dense.weight", "layers.out.kernel", "transpose"),
    Row("encoder.layer.{}.attention.output.dense.bias", "layers.out.bias"),
    Row("encoder.layer.{}.layernorm_after.weight", "layers.layernorm_after.scale"),
    Row("encoder.layer.{}.layernorm_after.bias", "layers.layernorm_after.bias"),
    Row("encoder.layer.{}.intermediate.dense.weight", "layers.intermediate.kernel", "transpose"),
    Row("encoder.layer.{}.intermediate.dense.bias", "layers.intermediate.bias"),
    Row("encoder.layer.{}.output.dense.weight", "layers.output.kernel", "transpose"),
    Row("encoder.layer.{}.output.dense.bias", "layers.output.bias"),
]

_REST = [
    Row("layernorm.weight", "layernorm.scale"),
    Row("layernorm.bias", "layernorm.bias"),
    Row("pooler.dense.weight", "pooler.kernel", "transpose", optional=True),
    Row("pooler.dense.bias", "pooler.bias", optional=True),
]
