"""Linear layers whose weights lie in memory as a CPU multiplies them.

torch hands every product of a linear layer to a general routine, which first rearranges the
weights: for the few rows of a decoding step that takes longer than the product itself. oneDNN,
which torch comes with, keeps them rearranged. Torch's compiler uses these operators, and they have
no public name: where they are missing, or give something else, the layers stay as they are.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

_ROWS = 512  # the arrangement is chosen for about as many rows, and serves one as well


def pack_linears(model: nn.Module) -> None:
    """Give each linear layer of a model a rearranged copy of its weights, for inference.

    Only on an x86 CPU. The weights themselves stay, for all that is not inference; they must not
    change any more.
    """
    weight = next(model.parameters())
    if weight.device.type != "cpu" or not packing_works(weight.dtype):
        return
    for module in model.modules():
        if type(module) in _PACKED and module.weight.dtype == weight.dtype:
            module.__class__ = _PACKED[type(module)]
            module.packed = _packed(module.weight if _is_linear(module) else module.weight.t())


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether this torch on this machine has the operators, and they multiply."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(size, generator=generator).to(dtype) for size in ((3, 64), (32, 64), (32,))
    )
    try:
        found = _product(x, _packed(weight), bias)
    except (AttributeError, RuntimeError, TypeError):
        return False
    expected = linear(x.double(), weight.double(), bias.double()).to(dtype)
    return found.dtype == dtype and torch.allclose(found, expected, rtol=0.02, atol=1e-4)


class _Packed:
    """In front of a linear layer's class."""

    packed: torch.Tensor
    bias: torch.Tensor | None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(..., inputs)` to `(..., outputs)`."""
        usual = torch.is_grad_enabled() or x.dtype != self.packed.dtype or x.device.type != "cpu"
        if usual or torch.is_autocast_enabled("cpu"):
            return super().forward(x)  # type: ignore[misc]  # that of the layer
        return _product(x, self.packed, self.bias)


class PackedLinear(_Packed, nn.Linear):
    """torch's own."""


class PackedConv1D(_Packed, Conv1D):
    """GPT-2's, whose weights are transposed."""


_PACKED: dict[type, type] = {nn.Linear: PackedLinear, Conv1D: PackedConv1D}


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _packed(weight: torch.Tensor) -> torch.Tensor:
    operator: Any = torch.ops.mkldnn._reorder_linear_weight
    return operator(weight.detach().contiguous(), _ROWS)


def _product(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    operator: Any = torch.ops.mkldnn._linear_pointwise
    return operator(x, packed, bias, "none", [], "")
