"""The training step on a toy model, against the same arithmetic in numpy."""

from __future__ import annotations

import functools
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from captionkit.backends.flax.loss import IGNORED, caption_loss
from captionkit.backends.flax.models.pieces import Pieces
from captionkit.backends.flax.optimizer import (
    decay_applies,
    flatten,
    trained_tensors,
    unflatten,
)
from captionkit.backends.flax.parallel import Pmap
from captionkit.backends.flax.step import initial_state, train_step
from captionkit.errors import ConfigError
from captionkit.recipe import TrainingConfig

VOCAB, LENGTH, LAYERS = 7, 3, 2

# ---- the loss --------------------------------------------------------------------------------


def loss_by_hand(logits, targets, smoothing):
    total = 0.0
    for row, target_row in zip(logits, targets):
        for scores, target in zip(row.astype(np.float64), target_row):
            if target == IGNORED:
                continue
            log_probs = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
            wanted = np.full(len(scores), smoothing / (len(scores) - 1))
            wanted[target] = 1 - smoothing
            entropy = -sum(p * math.log(p) for p in wanted if p > 0)
            total += -(wanted * log_probs).sum() - entropy
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_and_gradient_equal_the_brute_force_version(smoothing):
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(3, 5, 11)) * 4
    targets = draw.integers(0, 11, size=(3, 5))
    targets[0, 3:] = targets[2, 1:] = IGNORED
    loss, gradient = jax.value_and_grad(caption_loss)(
        jnp.float32(logits), jnp.array(targets), smoothing
    )
    assert float(loss) == pytest.approx(loss_by_hand(logits, targets, smoothing), rel=1e-5)
    step = 1e-5
    for index in [(0, 0, 0), (1, 4, 7), (0, 4, 2), (2, 0, 10)]:
        up, down = logits.copy(), logits.copy()
        up[index] += step
        down[index] -= step
        slope = loss_by_hand(up, targets, smoothing) - loss_by_hand(down, targets, smoothing)
        assert float(gradient[index]) == pytest.approx(slope / (2 * step), abs=1e-4)


def test_ignored_positions_have_no_gradient_even_where_they_are_not_finite():
    logits = jnp.zeros((1, 2, 4)).at[0, 1].set(jnp.inf)
    loss, gradient = jax.value_and_grad(caption_loss)(logits, jnp.array([[1, IGNORED]]))
    assert float(loss) == pytest.approx(math.log(4))
    assert np.all(np.asarray(gradient)[0, 1] == 0)
    assert np.all(np.isfinite(gradient))


def test_half_precision_logits_are_summed_in_full():
    draw = np.random.default_rng(0)
    logits = jnp.asarray(draw.normal(size=(64, 32, 50)), jnp.bfloat16)
    targets = draw.integers(0, 50, (64, 32))
    exact = loss_by_hand(np.asarray(logits, np.float32), targets, 0.0)
    assert float(caption_loss(logits, jnp.array(targets))) == pytest.approx(exact, rel=1e-5)


# ---- the update ------------------------------------------------------------------------------

NAMES = [
    *((f"layer.{i}.dense.weight", ("layers", "kernel"), i) for i in range(LAYERS)),
    *((f"layer.{i}.dense.bias", ("layers", "bias"), i) for i in range(LAYERS)),
    ("ln_f.weight", ("norm", "scale"), None),
    ("unused.weight", ("unused",), None),
]


def toy_params():
    draw = np.random.default_rng(1)
    return {
        "layers": {
            "kernel": draw.normal(size=(LAYERS, 4, VOCAB)).astype(np.float32),
            "bias": draw.normal(size=(LAYERS, VOCAB)).astype(np.float32),
        },
        "norm": {"scale": np.float32(1.3) * np.ones(4, np.float32)},
        "unused": np.ones((2, 2), np.float32),
    }


def whole(stack):
    return jnp.concatenate(stack.parts) if isinstance(stack, Pieces) else stack


def toy_logits(params, pixels, input_ids, mask, key):
    """Linear in everything: pixels `(rows, 1, 1, 3)` and the input id are the features."""
    rows, length = input_ids.shape
    image = jnp.broadcast_to(pixels.reshape(rows, 1, 3) / 255.0, (rows, length, 3))
    x = jnp.concatenate([image, input_ids[..., None] / VOCAB], -1) * params["norm"]["scale"]
    kernel, bias = (whole(params["layers"][name]) for name in ("kernel", "bias"))
    return sum(x @ kernel[i] + bias[i] for i in range(LAYERS))


def toy_batches(count, rows=8, passes=1):
    draw = np.random.default_rng(2)
    for _ in range(count):
        targets = draw.integers(0, VOCAB, (rows, LENGTH)).astype(np.int32)
        targets[draw.random((rows, LENGTH)) < 0.3] = IGNORED
        batch = {
            "pixels": draw.integers(0, 256, (rows, 1, 1, 3)).astype(np.uint8),
            "input_ids": draw.integers(0, VOCAB, (rows, LENGTH)).astype(np.int32),
            "targets": targets,
            "mask": np.ones((rows, LENGTH), bool),
        }
        yield {k: v.reshape(passes, rows // passes, *v.shape[1:]) for k, v in batch.items()}


def trained(freeze=()):
    shapes = {path: np.shape(leaf) for path, leaf in flatten(toy_params()).items()}
    return trained_tensors(NAMES, shapes, freeze, ["unused.*"])


def train(training, batches, freeze=(), precision="fp32", logits=toy_logits, rate=0.05, **changed):
    step = functools.partial(train_step, logits=logits, training=training, trained=trained(freeze))
    devices = Pmap(jax.devices()[:1])
    step = devices.compile(step)
    state = initial_state(toy_params(), training, trained(freeze), precision)._replace(**changed)
    state = devices.place(state)
    rows = []
    for batch in batches:
        state, metrics = step(state, batch, np.float32(rate), jax.random.key(0))
        rows.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state), rows


def by_hand(training, batches, frozen_layers=(), rate=0.05):
    """AdamW in float64, straight from the paper, with the gradient written out."""
    params = {k: np.float64(v) for k, v in flatten(toy_params()).items() if k != "unused"}
    m = {k: np.zeros_like(v) for k, v in params.items()}
    v = {k: np.zeros_like(w) for k, w in params.items()}
    losses, norms = [], []
    for t, batch in enumerate(batches, 1):
        batch = {k: x.reshape(-1, *x.shape[2:]) for k, x in batch.items()}
        rows = len(batch["targets"])
        image = np.broadcast_to(batch["pixels"].reshape(rows, 1, 3) / 255.0, (rows, LENGTH, 3))
        features = np.concatenate([image, batch["input_ids"][..., None] / VOCAB], -1)
        x = features * params["norm/scale"]
        scores = x @ params["layers/kernel"].sum(0) + params["layers/bias"].sum(0)
        learned = batch["targets"] != IGNORED
        tokens = learned.sum()
        losses.append(loss_by_hand(scores, batch["targets"], training.label_smoothing) / tokens)
        probs = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        low = training.label_smoothing / (VOCAB - 1)
        wanted = np.full(scores.shape, low)
        np.put_along_axis(
            wanted, np.where(learned, batch["targets"], 0)[..., None],
            1 - training.label_smoothing, -1,
        )  # fmt: skip
        d_scores = (probs - wanted) * learned[..., None] / tokens
        d_kernel = np.einsum("rlf,rlv->fv", x, d_scores)
        d_x = d_scores @ params["layers/kernel"].sum(0).T
        gradients = {
            "layers/kernel": np.stack([d_kernel] * LAYERS),
            "layers/bias": np.stack([d_scores.sum((0, 1))] * LAYERS),
            "norm/scale": (d_x * features).sum((0, 1)),
        }
        for layer in frozen_layers:
            gradients["layers/kernel"][layer] = gradients["layers/bias"][layer] = 0
        norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
        norms.append(norm)
        if training.max_grad_norm:
            factor = min(1.0, training.max_grad_norm / (norm + 1e-6))
            gradients = {k: g * factor for k, g in gradients.items()}
        for k, g in gradients.items():
            m[k] = training.adam_beta1 * m[k] + (1 - training.adam_beta1) * g
            v[k] = training.adam_beta2 * v[k] + (1 - training.adam_beta2) * g**2
            update = (m[k] / (1 - training.adam_beta1**t)) / (
                np.sqrt(v[k] / (1 - training.adam_beta2**t)) + training.adam_epsilon
            )
            if k == "layers/kernel":
                update = update + training.weight_decay * params[k]
            for layer in frozen_layers:
                if k.startswith("layers/"):
                    update[layer] = 0
            params[k] = params[k] - rate * update
    return params, losses, norms


@pytest.mark.parametrize(
    ("settings", "frozen_layers"),
    [
        ({}, ()),
        ({"weight_decay": 0.3, "label_smoothing": 0.2}, ()),
        ({"max_grad_norm": 0.05, "adam_beta1": 0.7, "adam_epsilon": 1e-3}, ()),
        ({"max_grad_norm": 0.0, "weight_decay": 0.3}, (0,)),
        ({"max_grad_norm": 0.05, "weight_decay": 0.3}, (1,)),
    ],
)
@pytest.mark.parametrize("passes", [1, 4])
def test_updates_are_adamw_as_published(settings, frozen_layers, passes):
    training = TrainingConfig(**{"max_grad_norm": 1.0, **settings})
    batches = list(toy_batches(6, passes=passes))
    state, rows = train(training, batches, freeze=[f"layer.{i}.*" for i in frozen_layers])
    params, losses, norms = by_hand(training, batches, frozen_layers)
    flat = flatten(state.params)
    for path, value in params.items():
        np.testing.assert_allclose(flat[path], value, atol=2e-5, err_msg=path)
    for layer in frozen_layers:
        for path in ("layers/kernel", "layers/bias"):
            assert np.array_equal(flat[path][layer], flatten(toy_params())[path][layer])
    assert np.array_equal(flat["unused"], np.ones((2, 2)))
    means = [row["loss_sum"] / row["tokens"] for row in rows]
    assert means == pytest.approx(losses, rel=1e-5)
    assert [row["grad_norm"] for row in rows] == pytest.approx(norms, rel=1e-4)
    assert int(state.step) == 6


def test_it_is_compiled_once(caplog):
    training = TrainingConfig(label_smoothing=0.3)  # of no other test: nothing is kept of it
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        train(training, list(toy_batches(3)))
    told = [row.getMessage() for row in caplog.records if "jit(with_gradients)" in row.getMessage()]
    assert len([text for text in told if text.startswith("Finished XLA compilation")]) == 1


def test_an_update_without_any_target_moves_nothing_by_its_gradient():
    training = TrainingConfig()
    batch = next(toy_batches(1))
    batch["targets"] = np.full_like(batch["targets"], IGNORED)
    state, rows = train(training, [batch])
    for path, value in flatten(toy_params()).items():
        assert np.array_equal(flatten(state.params)[path], value)
    assert rows == [{"loss_sum": 0.0, "tokens": 0.0, "grad_norm": 0.0, "overflow": 0.0}]


def test_an_overflowing_gradient_is_left_out_and_counted():
    def overflow(params, pixels, input_ids, mask, key):
        black = pixels.reshape(-1)[0] == 0
        # the square root has a value at zero, and an infinite slope
        root = jnp.sqrt(jnp.where(black, 0.0, 1.0) * jnp.abs(params["norm"]["scale"][0]))
        return toy_logits(params, pixels, input_ids, mask, key) + 1e-3 * root * pixels[0, 0, 0, 0]

    good = list(toy_batches(2))
    bad = {k: v.copy() for k, v in good[0].items()}
    bad["pixels"][:] = 0
    for batch in good:
        batch["pixels"][0, 0] = 255

    state, rows = train(TrainingConfig(), [good[0], bad, good[1]], logits=overflow)
    expected, _ = train(TrainingConfig(), good, logits=overflow)
    assert [row["overflow"] for row in rows] == [0, 1, 0]
    assert np.isfinite(rows[1]["loss_sum"])
    for path, value in flatten(expected.params).items():
        np.testing.assert_array_equal(flatten(state.params)[path], value)
    assert int(state.step) == 3
    assert float(state.loss_scale) == 1.0


def test_fp16_scales_the_loss_and_finds_a_scale_that_fits():
    def half(params, pixels, input_ids, mask, key):
        halved = jax.tree.map(lambda x: x.astype(jnp.float16), params)
        return toy_logits(halved, pixels, input_ids, mask, key).astype(jnp.float16)

    training = TrainingConfig()
    batches = [next(toy_batches(1))] * 6
    state, rows = train(
        training, batches, precision="fp16", logits=half, loss_scale=jnp.float32(2.0**20)
    )
    overflows = int(sum(row["overflow"] for row in rows))
    assert 0 < overflows < 6  # too much for fp16; a few times halved it is not
    assert [row["overflow"] for row in rows] == [1.0] * overflows + [0.0] * (6 - overflows)
    assert float(state.loss_scale) == 2.0 ** (20 - overflows)
    # the moments' own count goes on only with whole updates
    plain, _ = train(training, batches[overflows:], logits=half)
    for path, value in flatten(plain.params).items():
        np.testing.assert_allclose(flatten(state.params)[path], value, atol=5e-3, err_msg=path)
    grown, _ = train(
        training, batches[:1], precision="fp16", logits=half, whole_steps=jnp.int32(999)
    )
    assert (float(grown.loss_scale), int(grown.whole_steps)) == (2.0**16, 0)


def test_every_update_has_its_own_dropout_key():
    def noisy(params, pixels, input_ids, mask, key):
        seen = jax.random.uniform(key)
        return toy_logits(params, pixels, input_ids, mask, key) * seen

    batch = next(toy_batches(1))
    _, rows = train(TrainingConfig(), [batch] * 4, logits=noisy, rate=0.0)
    assert len({row["loss_sum"] for row in rows}) == 4
    _, again = train(TrainingConfig(), [batch] * 4, logits=noisy, rate=0.0)
    assert rows == again


# ---- which tensors ---------------------------------------------------------------------------


def test_freezing_goes_by_the_names_in_the_file():
    both = trained()
    assert both.count == LAYERS * (4 * VOCAB + VOCAB) + 4
    assert set(both.layers) == {"layers/kernel", "layers/bias", "norm/scale"}
    assert not any(mask is not None for mask in both.layers.values())
    one = trained(["layer.1.*"])
    assert one.count == 4 * VOCAB + VOCAB + 4
    assert one.layers["layers/kernel"].tolist() == one.layers["layers/bias"].tolist() == [0]
    assert set(trained(["layer.*"]).layers) == {"norm/scale"}
    with pytest.raises(ConfigError, match=r"'nothing\.\*' matches no tensor. Names look like: lay"):
        trained(["nothing.*"])
    with pytest.raises(ConfigError, match="nothing to train"):
        trained(["*"])


@pytest.mark.parametrize(
    ("name", "decays"),
    [
        ("encoder.embeddings.cls_token", True),
        ("encoder.embeddings.position_embeddings", True),
        ("encoder.encoder.layer.3.attention.attention.query.weight", True),
        ("encoder.encoder.layer.3.attention.attention.query.bias", False),
        ("encoder.encoder.layer.3.layernorm_before.weight", False),
        ("encoder.layernorm.weight", False),
        ("decoder.transformer.h.0.ln_1.weight", False),
        ("decoder.transformer.h.0.ln_cross_attn.weight", False),
        ("decoder.transformer.ln_f.weight", False),
        ("decoder.transformer.wte.weight", True),
        ("decoder.bert.embeddings.LayerNorm.weight", False),
        ("vision_model.norm.weight", False),
        ("decoder.transformer.h.0.attn.c_attn.weight", True),
        ("model.normaliser_table.weight", True),
    ],
)
def test_biases_and_norms_do_not_decay(name, decays):
    assert decay_applies(name) is decays


def test_paths_go_both_ways():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(nested) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten(flatten(nested)) == nested
