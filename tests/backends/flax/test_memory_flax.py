"""What frozen tensors, recomputed activations and Adafactor cost, counted in compiled programs."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from captionkit.backends.flax.model_folder import open_model
from captionkit.backends.flax.optimizer import flatten, trained_tensors
from captionkit.backends.flax.step import initial_state, logits_of, train_step
from captionkit.recipe import TrainingConfig

BATCH, LENGTH = 4, 6


@pytest.fixture(scope="module")
def model(ved_folder):
    return open_model(ved_folder, seed=0)


def batch_of(preprocess):
    draw = np.random.default_rng(0)
    ids = draw.integers(4, 14, (1, BATCH, LENGTH)).astype(np.int32)
    shape = (1, BATCH, preprocess.height, preprocess.width, 3)
    return {"pixels": draw.integers(0, 256, shape, np.uint8), "input_ids": ids,
            "targets": ids, "mask": np.ones_like(ids, bool)}  # fmt: skip


def step_of(model, freeze=(), unroll=False, **settings):
    """(the update as a function, its arguments, the trained tensors)."""
    training = TrainingConfig(freeze=tuple(freeze), **settings)
    family, config = model.family, model.config
    shapes = {path: leaf.shape for path, leaf in flatten(model.params).items()}
    names = family.tensor_names(config)
    trained = trained_tensors(names, shapes, freeze, family.untrained, family.model_type)
    apply = functools.partial(family.apply, unroll=unroll)
    logits = logits_of(
        SimpleNamespace(abstract=family.abstract, apply=apply), config, model.preprocess,
        jnp.float32, training.gradient_checkpointing,
    )  # fmt: skip
    step = functools.partial(train_step, logits=logits, training=training, trained=trained)
    state = initial_state(model.params, training, trained, "fp32")
    return step, (state, batch_of(model.preprocess), 1e-3, jax.random.key(0)), trained


def multiplications(function, *arguments):
    """Of all matrix products in a program, those in loops as often as they run."""

    def count(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (inner, _), _ = equation.params["dimension_numbers"]
                left = equation.invars[0].aval.shape
                total += math.prod(equation.outvars[0].aval.shape) * math.prod(
                    left[axis] for axis in inner
                )
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
            ):
                inside = getattr(value, "jaxpr", value)
                if hasattr(inside, "eqns"):
                    total += times * count(inside)
        return total

    return count(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_a_frozen_encoder_costs_its_forward_pass_alone(model):
    family, (graphdef, _) = model.family, model.family.abstract(model.config)
    step, arguments, _ = step_of(model, ["encoder"])
    batch = {name: value[0] for name, value in arguments[1].items()}
    pixels = jnp.zeros(batch["pixels"].shape)
    encoding = multiplications(lambda params: family.encode(graphdef, params, pixels), model.params)
    # the projection between the widths is not the encoder's, and is differentiated
    width, outputs = model.config.encoder.hidden_size, model.config.decoder.hidden_size
    tokens = BATCH * ((32 // 8) ** 2 + 1)
    projection = tokens * width * outputs
    states = jax.eval_shape(lambda p: family.encode(graphdef, p, pixels), model.params)
    decoder = {"decoder": model.params["decoder"]}

    def decoding(moving, states):
        params = {**model.params, **moving}
        return family.decode(graphdef, params, states, batch["input_ids"], batch["mask"]).sum()

    gradient = jax.grad(decoding, argnums=(0, 1))
    states = jnp.zeros(states.shape)
    expected = encoding + multiplications(gradient, decoder, states) + projection
    assert multiplications(step, *arguments) == expected
    whole, all_arguments, _ = step_of(model)
    assert multiplications(whole, *all_arguments) > 1.3 * expected


def products_of_a_layer(model):
    """Multiplications in the forward pass of a layer.

    Those by weights of the encoder, those of its attention, those by weights of the decoder.
    """
    encoder, decoder = model.config.encoder, model.config.decoder
    tokens, width = (32 // 8) ** 2 + 1, encoder.hidden_size
    weights = BATCH * tokens * (4 * width**2 + 2 * width * encoder.intermediate_size)
    attention = 2 * BATCH * tokens**2 * width
    # self-attention 4, queries and output of cross-attention 2, perceptron 8, and keys and values
    text = BATCH * (LENGTH * (4 + 2 + 8) + tokens * 2) * decoder.hidden_size**2
    return weights, attention, text


EMBEDDINGS, LAYER = "encoder.embeddings.*", "encoder.encoder.layer.{}.*"
HALVES = {
    "lower": [EMBEDDINGS, LAYER.format(0)],
    "lower, embeddings trained": [LAYER.format(0)],
    "upper": [LAYER.format(1)],
    "lower of the decoder": ["decoder.transformer.h.0.*"],
    "both": [LAYER.format(1), "decoder.transformer.h.0.*"],
}


def saved(model, half):
    """Multiplications that freezing saves: gradients of weights, and all below what is trained."""
    weights, attention, text = products_of_a_layer(model)
    # a matrix product has two in the backward pass, one for either factor
    patches = BATCH * (32 // 8) ** 2 * 8 * 8 * 3 * model.config.encoder.hidden_size
    return {
        "lower": 2 * (weights + attention) + patches,
        "lower, embeddings trained": weights,
        "upper": weights,
        "lower of the decoder": text,
        "both": weights + text,
    }[half]


@pytest.mark.parametrize("half", HALVES)
def test_frozen_layers_of_a_stack_have_no_gradient(model, half):
    whole, all_arguments, _ = step_of(model)
    partly, arguments, _ = step_of(model, HALVES[half])
    fewer = multiplications(whole, *all_arguments) - multiplications(partly, *arguments)
    assert fewer == saved(model, half)


@pytest.mark.long
def test_a_compiled_program_does_less_for_frozen_layers(model):
    """As XLA counts, which sees the body of a loop once: so without loops."""
    flops = []
    for freeze in ((), HALVES["lower"], HALVES["upper"]):
        step, arguments, _ = step_of(model, freeze, unroll=True)
        flops.append(jax.jit(step).lower(*arguments).compile().cost_analysis()["flops"])
    for less, half in zip(flops[1:], ("lower", "upper")):
        # a multiplication and an addition each; what is not a matrix product comes on top
        assert 2 * saved(model, half) < flops[0] - less < 3 * saved(model, half)


def test_frozen_tensors_have_no_state_nor_do_frozen_layers_of_a_stack(model):
    for freeze in (["encoder"], ["encoder", "decoder.transformer.h.0.*"]):
        _, (state, *_), trained = step_of(model, freeze)
        sizes = [leaf.size for leaf in jax.tree.leaves(state.moments) if leaf.ndim]
        assert sum(sizes) == 2 * trained.count
        assert not any("encoder/" in path for path in trained.layers)
    partly = {path for path, layers in trained.layers.items() if layers is not None}
    assert partly == {path for path in trained.layers if path.startswith("decoder/h/")}


def test_checkpointing_gives_the_same_update_of_the_trained_layers_from_less_memory(model):
    results, sizes = [], []
    for lean in (False, True):
        step, arguments, _ = step_of(
            model, ["decoder.transformer.h.0.*"], gradient_checkpointing=lean
        )
        compiled = jax.jit(step).lower(*arguments).compile()
        results.append(compiled(*arguments))
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 0.8 * sizes[0]
    (first, plain), (second, lean) = results
    assert float(plain["loss_sum"]) == pytest.approx(float(lean["loss_sum"]), rel=1e-6)
    assert float(plain["grad_norm"]) == pytest.approx(float(lean["grad_norm"]), rel=1e-5)
    moments = [flatten(state.moments[0].mu) for state in (first, second)]
    for path, value in moments[0].items():
        np.testing.assert_allclose(moments[1][path], value, atol=1e-6, rtol=1e-4, err_msg=path)
    before, after = flatten(model.params), flatten(first.params)
    for path, value in before.items():
        if path.startswith("decoder/h/"):
            assert np.array_equal(after[path][0], value[0]), path
            assert not np.array_equal(after[path][1], value[1]), path


def test_adafactor_keeps_rows_and_columns_of_matrices(model):
    sizes = {}
    for name in ("adamw", "adafactor"):
        _, (state, *_), trained = step_of(model, optimizer=name)
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(state.moments) if leaf.ndim)
    assert sizes["adamw"] == 2 * trained.count
    tensors = {}
    for name, path, _ in model.family.tensor_names(model.config):
        if "/".join(path) in trained.layers:
            tensors[name] = flatten(model.params)["/".join(path)].shape
    stacks = {
        name for name, _, layer in model.family.tensor_names(model.config) if layer is not None
    }
    shapes = [shape[1:] if name in stacks else shape for name, shape in tensors.items()]
    # the kernel of the patches has its pixels first here
    rows_and_columns = sum(
        math.prod(shape[2:]) * (shape[0] + shape[1]) if len(shape) == 4
        else math.prod(shape[:-2]) * (shape[-1] + shape[-2]) if len(shape) > 1
        else math.prod(shape)
        for shape in shapes
    )  # fmt: skip
    # beside them optax has a count and single numbers in the place of what it does not keep
    assert rows_and_columns < sizes["adafactor"] < 1.2 * rows_and_columns
    assert sizes["adafactor"] < 0.15 * sizes["adamw"]
