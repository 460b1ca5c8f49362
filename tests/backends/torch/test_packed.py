"""Rearranged linear layers against torch's own."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 (after the skip)
from transformers.pytorch_utils import Conv1D  # noqa: E402

from captionkit.backends.torch import packed  # noqa: E402
from captionkit.backends.torch.packed import pack_linears, packing_works  # noqa: E402


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.ModuleList(
        [nn.Linear(24, 40), nn.Linear(24, 7, bias=False), Conv1D(33, 24), nn.LayerNorm(24)]
    )


needs_packing = pytest.mark.skipif(
    not packing_works(torch.float32), reason="this torch or CPU has no oneDNN linear layers"
)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_products_are_those_of_the_layers(model, dtype):
    if not packing_works(dtype):
        pytest.skip(f"this CPU multiplies no {dtype}")
    ours = copy.deepcopy(model).to(dtype)
    pack_linears(ours)
    precision = (
        {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    )
    whole = torch.randn(3, 50, 48)
    inputs = [whole[0, :1, :24], whole[..., :24], whole[:, -1:, 24:], whole[:, :, :24].mT.mT,
              torch.randn(700, 24)]  # fmt: skip
    for layer, theirs in list(zip(ours, model, strict=True))[:3]:
        assert isinstance(layer, type(theirs))
        assert type(layer) is not type(theirs)
        for x in inputs:
            found = layer(x.to(dtype))
            assert found.dtype == dtype
            expected = copy.deepcopy(theirs).to(dtype).double()(x.to(dtype).double())
            torch.testing.assert_close(found.double(), expected, **precision)
    assert type(ours[3]) is nn.LayerNorm


@needs_packing
def test_what_is_no_inference_goes_the_usual_way(model):
    ours = copy.deepcopy(model)
    pack_linears(ours)
    x = torch.randn(5, 24)
    for layer, theirs in list(zip(ours, model, strict=True))[:3]:
        results = []
        for one in (layer, theirs):
            one(x).square().sum().backward()
            results.append(one.weight.grad)
        assert torch.equal(*results)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ours[0](x).dtype == torch.bfloat16
    assert ours.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("failure", ["missing", "wrong"])
def test_without_right_operators_layers_stay_as_they_are(model, monkeypatch, failure):
    def product(x, weight, bias):
        if failure == "missing":
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear'")
        return torch.zeros(len(x), len(bias), dtype=x.dtype)

    monkeypatch.setattr(packed, "_product", product)
    packing_works.cache_clear()
    try:
        pack_linears(model)
    finally:
        packing_works.cache_clear()
    assert [type(layer) for layer in model] == [nn.Linear, nn.Linear, Conv1D, nn.LayerNorm]
