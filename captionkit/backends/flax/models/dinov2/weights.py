"""The weights of DINOv2: names in model.safetensors, paths of parameters, transforms."""

from __future__ import annotations

from captionkit.backends.flax.models.convert import Row
from captionkit.backends.flax.models.dinov2.config import Dinov2Config


def table(config: Dinov2Config) -> list[Row]:
    """The rows of this configuration."""
    inside = ("weights_in", "weights_out") if config.use_swiglu_ffn else ("fc1", "fc2")
    rows = [*_ROWS]
    for hf, flax in zip(inside, ("mlp_in", "mlp_out"), strict=True):
        rows.append(Row(f"{_LAYER}.mlp.{hf}.weight", f"layers.{flax}.kernel", "transpose"))
        rows.append(Row(f"{_LAYER}.mlp.{hf}.bias", f"layers.{flax}.bias"))
    if config.use_mask_token:
        rows.append(Row("embeddings.mask_token", "mask_token"))
    if not config.qkv_bias:
        without = {f"layers.{name}.bias" for name in ("query", "key", "value")}
        rows = [row for row in rows if row.flax not in without]
    return rows


_LAYER = "encoder.layer.{}"
_ATTENTION = f"{_LAYER}.attention.attention"
_ROWS = [
    Row("embeddings.cls_token", "cls_token"),
    Row("embeddings.position_embeddings", "position_embeddings"),
    Row("embeddings.patch_embeddings.projection.weight", "patch_embeddings.kernel", "conv"),
    Row("embeddings.patch_embeddings.projection.bias", "patch_embeddings.bias"),
    Row(f"{_LAYER}.norm1.weight", "layers.norm1.scale"),
    Row(f"{_LAYER}.norm1.bias", "layers.norm1.bias"),
    Row(f"{_ATTENTION}.query.weight", "layers.query.kernel", "transpose"),
    Row(f"{_ATTENTION}.query.bias", "layers.query.bias"),
    Row(f"{_ATTENTION}.key.weight", "layers.key.kernel", "transpose"),
    Row(f"{_ATTENTION}.key.bias", "layers.key.bias"),
    Row(f"{_ATTENTION}.value.weight", "layers.value.kernel", "transpose"),
    Row(f"{_ATTENTION}.value.bias", "layers.value.bias"),
    Row(f"{_LAYER}.attention.output.dense.weight", "layers.out.kernel", "transpose"),
    Row(f"{_LAYER}.attention.output.dense.bias", "layers.out.bias"),
    Row(f"{_LAYER}.layer_scale1.lambda1", "layers.layer_scale1"),
    Row(f"{_LAYER}.norm2.weight", "layers.norm2.scale"),
    Row(f"{_LAYER}.norm2.bias", "layers.norm2.bias"),
    Row(f"{_LAYER}.layer_scale2.lambda1", "layers.layer_scale2"),
    Row("layernorm.weight", "layernorm.scale"),
    Row("layernorm.bias", "layernorm.bias"),
]
