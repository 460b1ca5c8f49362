"""Adafactor and bfloat16: Flax against torch."""

from __future__ import annotations

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import jax  # noqa: E402 (after the skip)
from safetensors.numpy import load_file  # noqa: E402
from transformers.optimization import Adafactor  # noqa: E402

import captionkit  # noqa: E402
from captionkit.backends.flax.optimizer import optimizer, trained_tensors  # noqa: E402
from captionkit.recipe import TrainingConfig  # noqa: E402

LAYERS, RATE = 3, 0.02
# name in the file, path, its layer, how a tensor of the file becomes the parameter
TENSORS = [
    *((f"layer.{i}.dense.weight", "layers/dense/kernel", i, (5, 7)) for i in range(LAYERS)),
    *((f"layer.{i}.dense.bias", "layers/dense/bias", i, (5,)) for i in range(LAYERS)),
    ("embedding.weight", "embedding", None, (11, 6)),
    ("norm.weight", "norm/scale", None, (6,)),
    ("class", "class", None, (1, 1, 6)),
    ("position", "position", None, (1, 9, 6)),
    ("patches.weight", "patches/kernel", None, (6, 3, 4, 2)),
]


def as_flax(path, tensor):
    """torch's linear layers are (outputs, inputs), its convolutions have the pixels last."""
    if path == "layers/dense/kernel":
        return tensor.T
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor


def to_flax(tensors):
    flat = {}
    for name, path, layer, _ in TENSORS:
        value = as_flax(path, tensors[name])
        flat.setdefault(path, []).append(value) if layer is not None else flat.update({path: value})
    return {path: np.stack(v) if isinstance(v, list) else v for path, v in flat.items()}


@pytest.mark.parametrize("frozen", [(), (1,)])
def test_updates_of_adafactor_are_those_of_transformers(frozen):
    draw = np.random.default_rng(0)
    start = {name: draw.normal(size=shape).astype(np.float32) for name, _, _, shape in TENSORS}
    gradients = [
        {
            name: (draw.normal(size=shape) * 10.0 ** draw.integers(-6, 2)).astype(np.float32)
            for name, _, _, shape in TENSORS
        }
        for _ in range(6)
    ]
    training = TrainingConfig(optimizer="adafactor", weight_decay=0.3, learning_rate=RATE)
    names = [(name, tuple(path.split("/")), layer) for name, path, layer, _ in TENSORS]
    shapes = {path: value.shape for path, value in to_flax(start).items()}
    trained = trained_tensors(names, shapes, [f"layer.{i}.*" for i in frozen])
    ours = optimizer(training, trained)

    kept = [name for name, _, layer, _ in TENSORS if layer is None or layer not in frozen]
    parameters = {name: torch.nn.Parameter(torch.tensor(start[name])) for name in kept}
    decays = {name for name, path, _, _ in TENSORS if trained.decays.get(path)}
    theirs = Adafactor(
        [
            {"params": [parameters[n] for n in kept if n in decays], "weight_decay": 0.3},
            {"params": [parameters[n] for n in kept if n not in decays], "weight_decay": 0.0},
        ],
        lr=RATE, scale_parameter=False, relative_step=False,
    )  # fmt: skip

    def moving(flat):
        rows = {path: layers for path, layers in trained.layers.items() if layers is not None}
        return {path: v[rows[path]] if path in rows else v for path, v in flat.items()}

    params = moving(to_flax(start))
    state, update = ours.init(params), jax.jit(ours.update)
    for gradient in gradients:
        updates, state = update(moving(to_flax(gradient)), state, params)
        params = {path: value - RATE * updates[path] for path, value in params.items()}
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradient[name])
        theirs.step()
    expected = {n: p.detach().numpy() for n, p in parameters.items()}
    expected = moving(to_flax({**start, **expected}))
    for path, value in expected.items():
        np.testing.assert_allclose(params[path], value, atol=2e-6, rtol=2e-6, err_msg=path)


@pytest.mark.skipif(
    "CAPTIONKIT_ALL_PAIRS" not in os.environ, reason="slow; set CAPTIONKIT_ALL_PAIRS=1"
)
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({"optimizer": "adafactor", "precision": "fp32"}, 1e-4), ({"precision": "bf16"}, 0.03)],
)
def test_a_run_is_that_of_torch(ved_folder, pairs, tmp_path, settings, tolerance):
    losses = []
    for backend in ("torch", "flax"):
        result = captionkit.finetune(
            model=str(ved_folder), dataset=pairs, backend=backend,
            output_dir=str(tmp_path / backend), max_steps=4, batch_size=4, learning_rate=2e-3,
            weight_decay=0.1, warmup_steps=1, test_size=0, logging_steps=1, max_grad_norm=0.5,
            freeze=["encoder"], eval_steps=0, save_steps=0, **settings,
        )  # fmt: skip
        losses.append([row["loss"] for row in result.history])
        tensors = load_file(result.output_dir / "model.safetensors").values()
        assert {tensor.dtype for tensor in tensors} == {np.dtype("float32")}
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=tolerance)
    assert losses[0][0] != pytest.approx(losses[0][3], abs=2 * tolerance)
