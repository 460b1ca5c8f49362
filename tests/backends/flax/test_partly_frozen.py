"""Stacks of which some layers are frozen: the gradient of whole stacks, sliced, is the oracle."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from captionkit.backends.flax.loss import caption_loss
from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.models.layers import Linear, scan_layers
from captionkit.backends.flax.models.pieces import Pieces, in_pieces, runs_of
from captionkit.backends.flax.optimizer import flatten, trained_tensors
from captionkit.backends.flax.step import compile_step, initial_state, train_step
from captionkit.recipe import TrainingConfig

LAYERS = 4
SUBSETS = [s for n in range(1, LAYERS) for s in itertools.combinations(range(LAYERS), n)]
DRAW = np.random.default_rng(0)
VALUES = {
    "kernel": DRAW.normal(size=(LAYERS, 3, 3)).astype(np.float32),
    "bias": DRAW.normal(size=(LAYERS, 3)).astype(np.float32),
}
FACTORS = np.float32([1.0, 0.5, -1.0, 2.0])  # what the layers of the toy are given beside x


# ---- cutting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", SUBSETS)
def test_pieces_are_the_runs_of_frozen_and_of_trained_layers(layers):
    moving = -VALUES["bias"][list(layers)]
    pieces = in_pieces(jnp.array(VALUES["bias"]), jnp.array(moving), np.array(layers))
    expected = VALUES["bias"].copy()
    expected[list(layers)] *= -1
    assert np.array_equal(np.concatenate(pieces.parts), expected)
    kinds = [layer in layers for layer in range(LAYERS)]
    assert [len(part) for part in pieces.parts] == [
        len(list(run)) for _, run in itertools.groupby(kinds)
    ]


def test_all_stacks_are_cut_where_one_of_them_is():
    x = np.arange(6)
    pieces = Pieces((x[:2], x[2:])), Pieces((x[:1], x[1:5], x[5:]))
    runs = runs_of({"array": x, "pieces": pieces, "nothing": None})
    assert [run["array"].tolist() for run in runs] == [[0], [1], [2, 3, 4], [5]]
    for run in runs:
        assert all(np.array_equal(piece, run["array"]) for piece in run["pieces"])
        assert run["nothing"] is None


def test_what_is_not_in_pieces_is_not_touched():
    tree = {"a": np.ones((2, 3)), "b": (None, np.zeros(2))}
    (run,) = runs_of(tree)
    assert run is tree


# ---- scanning --------------------------------------------------------------------------------


def toy(params, x, **settings):
    """Four layers of `tanh(x @ kernel + bias) * factor`."""
    graphdef, _ = nnx.split(Linear(3, 3, std=0.1, stack=(LAYERS,)))

    def body(layer, x, factor):
        return jnp.tanh(layer(x)) * factor

    settings = {"remat": False, "unroll": False, **settings}
    return scan_layers(body, x, nnx.merge(graphdef, params), jnp.array(FACTORS), **settings)


def toy_by_hand(params, x):
    for kernel, bias, factor in zip(params["kernel"], params["bias"], FACTORS):
        x = jnp.tanh(x @ kernel + bias) * factor
    return x


QUICK_SUBSETS = ((2, 3), (0, 3), (1, 3))
TOYS = [
    *(pytest.param(s, s, marks=[] if s in QUICK_SUBSETS else [pytest.mark.long]) for s in SUBSETS),
    ((1, 2), (0, 2)),
    ((3,), ()),
]


@pytest.mark.parametrize(("kernels", "biases"), TOYS)
def test_values_and_gradients_are_those_of_whole_stacks(kernels, biases):
    x = jnp.array(np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32))
    layers = {"kernel": np.array(kernels, int), "bias": np.array(biases, int)}
    moving = {name: jnp.array(VALUES[name][rows]) for name, rows in layers.items() if rows.size}

    def loss(moving, **settings):
        params = {
            name: in_pieces(value, moving[name], layers[name]) if name in moving else value
            for name, value in VALUES.items()
        }
        return jnp.square(toy(params, x, **settings)).sum()

    expected, gradients = jax.value_and_grad(lambda p: jnp.square(toy_by_hand(p, x)).sum())(VALUES)
    for settings in ({}, {"remat": True}, {"unroll": True}):
        value, ours = jax.value_and_grad(functools.partial(loss, **settings))(moving)
        assert float(value) == pytest.approx(float(expected), rel=1e-5)
        for name, gradient in ours.items():
            np.testing.assert_allclose(
                gradient, gradients[name][layers[name]], rtol=1e-4, atol=1e-6
            )


def test_a_compiled_gradient_takes_no_product_for_frozen_weights_nor_below_them():
    """A layer takes a product forward, one back to its input, one for its weights if trained.

    From the lowest trained layer down nothing goes back.
    """
    width, rows = 64, 32
    graphdef, _ = nnx.split(Linear(width, width, std=0.1, bias=False, stack=(LAYERS,)))
    kernels, x = jnp.ones((LAYERS, width, width)) / width, jnp.ones((rows, width))

    def flops(layers):
        def loss(moving):
            stack = in_pieces(kernels, moving, layers) if len(layers) < LAYERS else moving
            model = nnx.merge(graphdef, {"kernel": stack})
            body = lambda layer, x, _: jnp.tanh(layer(x))  # noqa: E731
            return scan_layers(body, x, model, None, remat=False, unroll=True).sum()

        gradient = jax.jit(jax.grad(loss)).lower(kernels[np.array(layers)]).compile()
        return gradient.cost_analysis()["flops"] / (2 * rows * width * width)

    expected = {(0, 1, 2, 3): 11, (2, 3): 7, (0, 1): 9, (0, 3): 9, (3,): 5, (0,): 8}
    for layers, products in expected.items():
        assert flops(layers) == pytest.approx(products, rel=0.06), layers


# ---- training --------------------------------------------------------------------------------

ENCODER = {
    "hidden_size": 8, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "intermediate_size": 12, "image_size": 16, "patch_size": 8, "initializer_range": 0.2,
}  # fmt: skip
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
BERT = {
    "vocab_size": 20, "hidden_size": 10, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "intermediate_size": 12, "max_position_embeddings": 12, "initializer_range": 0.2,
    **DROPOUT, **IDS,
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "vocab_size": 20, "n_positions": 12, "n_embd": 10, "n_layer": LAYERS,
    "n_head": 2, "is_decoder": True, "add_cross_attention": True, "initializer_range": 0.2,
    "scale_attn_by_inverse_layer_idx": True, **IDS,
}  # fmt: skip
BERT_DECODER = {"model_type": "bert", "is_decoder": True, "add_cross_attention": True, **BERT}


def encoder_decoder(encoder, decoder, **options):
    return {
        "model_type": "vision-encoder-decoder", "decoder": decoder,
        "encoder": {**ENCODER, "model_type": encoder, **options}, "decoder_start_token_id": 2,
        "eos_token_id": 3, "pad_token_id": 0, "is_encoder_decoder": True,
    }  # fmt: skip


DINOV2 = encoder_decoder("dinov2", BERT_DECODER, mlp_ratio=2, **DROPOUT)
DINOV2["encoder"].pop("intermediate_size")
CONFIGS = {
    "vit, gpt2": encoder_decoder("vit", GPT2, **DROPOUT),
    "deit, bert": encoder_decoder("deit", BERT_DECODER, **DROPOUT),
    "clip, gpt2": encoder_decoder("clip_vision_model", GPT2, attention_dropout=0.1),
    "dinov2, bert": DINOV2,
    "git": {"model_type": "git", "vision_config": ENCODER, **BERT, "num_hidden_layers": LAYERS + 1},
    "blip": {
        "model_type": "blip", "vision_config": {**ENCODER, "attention_dropout": 0.1},
        "text_config": {**BERT, "sep_token_id": 3, "bos_token_id": 8},
    },
}  # fmt: skip
FROZEN = {  # whether a tensor of a layer is
    "lower": lambda name, layer: layer in (0, 1),
    "middle": lambda name, layer: layer in (1, 2),
    "upper": lambda name, layer: layer in (2, 3),
    "alternating": lambda name, layer: layer in (0, 2),
    "single": lambda name, layer: layer == 2,
    "tensors": lambda name, layer: layer == 0 or (layer == 2 and "bias" in name),
}
QUICK = {("vit, gpt2", "lower")}
CASES = [
    pytest.param(config, frozen, marks=[] if (config, frozen) in QUICK else [pytest.mark.long])
    for config in CONFIGS
    for frozen in FROZEN
]


@functools.cache
def whole_gradient(name):
    """(family, config, parameters, batch, loss function, loss, gradients of all parameters).

    The loss is that of the first update, with its dropout, a mean over tokens.
    """
    values = CONFIGS[name]
    family = family_of(values["model_type"])
    config = family.config.from_dict(values, "config.json")
    graphdef, _ = family.abstract(config)
    params = family.init_params(config, 0)
    draw = np.random.default_rng(0)
    ids = draw.integers(4, 20, (2, 3, 5)).astype(np.int32)
    batch = {"pixels": draw.integers(0, 256, (3, 16, 16, 3), np.uint8), "input_ids": ids[0],
             "targets": ids[1], "mask": np.ones(ids[0].shape, bool)}  # fmt: skip

    def logits(params, pixels, input_ids, mask, key, **settings):
        images = pixels.astype(jnp.float32) / 128 - 1
        return family.apply(graphdef, params, images, input_ids, mask, dropout_key=key, **settings)

    def loss(params):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 0), 0)
        scores = logits(params, batch["pixels"], batch["input_ids"], batch["mask"], key)
        return caption_loss(scores, batch["targets"], 0.0) / batch["targets"].size

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    return family, config, params, batch, logits, float(value), flatten(gradients)


@pytest.mark.parametrize(("name", "frozen"), CASES)
def test_an_update_is_that_of_whole_gradients_sliced(name, frozen):
    family, config, params, batch, logits, loss, gradients = whole_gradient(name)
    names = family.tensor_names(config)
    freeze = [n for n, _, layer in names if layer is not None and FROZEN[frozen](n, layer)]
    training = TrainingConfig(max_grad_norm=0.5)
    shapes = {path: leaf.shape for path, leaf in flatten(params).items()}
    trained = trained_tensors(names, shapes, freeze, family.untrained)
    state = initial_state(params, training, trained, "fp32")
    # neither changes a number
    settings = {
        "remat": frozen in ("lower", "alternating"),
        "unroll": frozen in ("upper", "tensors"),
    }
    step = functools.partial(
        train_step, logits=functools.partial(logits, **settings), training=training, trained=trained
    )
    one_pass = {key: value[None] for key, value in batch.items()}
    before = jax.tree.map(np.shape, state)
    state, metrics = compile_step(step, jax.devices()[:1])(state, one_pass, 0.1, jax.random.key(7))

    expected = {
        path: gradients[path] if layers is None else gradients[path][layers]
        for path, layers in trained.layers.items()
    }
    assert any(layers is not None for layers in trained.layers.values())
    norm = math.sqrt(sum(float(jnp.square(gradient).sum()) for gradient in expected.values()))
    assert float(metrics["loss_sum"]) / batch["targets"].size == pytest.approx(loss, rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    moments = state.moments[0].mu
    assert moments.keys() == expected.keys()
    for path, gradient in expected.items():
        clipped = gradient * min(1.0, 0.5 / (norm + 1e-6))
        np.testing.assert_allclose(moments[path], 0.1 * clipped, rtol=1e-3, atol=1e-7, err_msg=path)
    # what is saved has the form it had, and frozen layers are where they were
    assert jax.tree.map(np.shape, state) == before
    start, now = flatten(params), flatten(state.params)
    for path, layers in trained.layers.items():
        still = [] if layers is None else [i for i in range(len(now[path])) if i not in layers]
        assert np.array_equal(now[path][np.array(still, int)], start[path][np.array(still, int)])
