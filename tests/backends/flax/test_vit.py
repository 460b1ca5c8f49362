"""The encoder against a plain computation of its parts, without torch."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from captionkit.backends.flax.models.activations import ACTIVATIONS, activation
from captionkit.backends.flax.models.layers import Patches, dropout
from captionkit.backends.flax.models.vit.config import ViTConfig
from captionkit.backends.flax.models.vit.modeling import ViT
from captionkit.errors import CheckpointError

TINY = {
    "model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 12, "image_size": [7, 9], "patch_size": [3, 2],
}  # fmt: skip


def with_values(module, seed=0):
    graphdef, state = nnx.split(module, nnx.Param)
    draw = np.random.default_rng(seed)
    values = jax.tree.map(
        lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), nnx.to_pure_dict(state)
    )
    return nnx.merge(graphdef, values), values


def test_patches_are_a_strided_convolution_that_leaves_the_rest():
    config = ViTConfig.from_dict(TINY, "here")
    module, values = with_values(Patches(config.patch_size, 3, 8, std=0.02))
    images = np.random.default_rng(1).normal(size=(2, 7, 9, 3)).astype(np.float32)
    expected = []
    for row in range(2):  # 7 // 3
        for column in range(4):  # 9 // 2
            patch = images[:, row * 3 : row * 3 + 3, column * 2 : column * 2 + 2]
            expected.append(np.einsum("bhwc,hwco->bo", patch, values["kernel"]) + values["bias"])
    np.testing.assert_allclose(module(images), np.stack(expected, 1), atol=1e-5)
    assert config.tokens == 9


def test_a_layer_is_what_the_paper_says():
    config = ViTConfig.from_dict(TINY, "here")
    model, values = with_values(ViT(config))
    layer = jax.tree.map(lambda x: x[0], values["layers"])
    x = np.random.default_rng(2).normal(size=(1, 5, 8))

    def norm(x, p):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]

    def linear(x, p):
        return x @ p["kernel"] + p["bias"]

    y = norm(x, layer["layernorm_before"])[0]
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        q, k, v = (linear(y, layer[name])[:, h] for name in ("query", "key", "value"))
        weights = np.exp(q @ k.T / 2)  # the square root of a head's width
        heads.append(weights / weights.sum(-1, keepdims=True) @ v)
    middle = x + linear(np.concatenate(heads, -1), layer["out"])
    inner = linear(norm(middle, layer["layernorm_after"]), layer["intermediate"])
    gelu = 0.5 * inner * (1 + np.vectorize(math.erf)(inner / np.sqrt(2)))
    expected = middle + linear(gelu, layer["output"])

    graphdef, state = nnx.split(model.layers)
    block = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], state))
    np.testing.assert_allclose(block(jnp.float32(x), None), expected, atol=2e-4)


def test_looping_over_layers_or_not_and_remat_give_the_same():
    model, _ = with_values(ViT(ViTConfig.from_dict({**TINY, "num_hidden_layers": 3}, "here")))
    images = np.random.default_rng(3).normal(size=(2, 7, 9, 3))
    expected = model(images)
    for options in ({"unroll": True}, {"remat": True}):
        np.testing.assert_allclose(model(images, **options), expected, atol=1e-5)
    half = model(images, dtype=jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    assert 0 < np.abs(half.astype(np.float32) - expected).mean() < 0.1


def test_the_program_does_not_grow_with_depth():
    def size(layers):
        config = ViTConfig.from_dict({**TINY, "num_hidden_layers": layers}, "here")
        graphdef, state = nnx.split(ViT(config), nnx.Param)
        image = jax.ShapeDtypeStruct((1, 7, 9, 3), jnp.float32)
        run = lambda p, x: nnx.merge(graphdef, p)(x)  # noqa: E731
        return len(jax.jit(run).lower(nnx.to_pure_dict(state), image).as_text().splitlines())

    assert size(12) == size(2)


def test_dropout_needs_a_key_and_keeps_the_mean():
    model, _ = with_values(ViT(ViTConfig.from_dict({**TINY, "hidden_dropout_prob": 0.5}, "here")))
    images = np.random.default_rng(3).normal(size=(2, 7, 9, 3))
    first, second = (model(images, dropout_key=jax.random.key(i)) for i in (1, 2))
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, model(images, dropout_key=jax.random.key(1)))

    dropped = dropout(jnp.ones(100_000), 0.3, jax.random.key(0))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.7)}
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "golu"}, "activation 'golu'"),
        ({"hidden_size": 9}, "does not divide by 2 heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers=2.5"),
        ({"image_size": "large"}, "image_size='large'"),
        ({"num_channels": 1}, "num_channels=1"),
        ({"use_register_tokens": True}, "use_register_tokens=True"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"layer_norm_eps": None}, "layer_norm_eps=None"),
        ({"patch_size": [1, 2, 3]}, "patch_size"),
    ],
)
def test_what_is_not_supported_is_an_error_that_names_it(change, message):
    with pytest.raises(CheckpointError, match=message):
        ViTConfig.from_dict({**TINY, **change}, "here")


def test_activations_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers.activations import ACT2FN

    x = np.linspace(-8, 8, 201, dtype=np.float32)
    for name in ACTIVATIONS:
        theirs = ACT2FN[name](torch.tensor(x)).numpy()
        np.testing.assert_allclose(activation(name)(x), theirs, atol=2e-6, err_msg=name)
