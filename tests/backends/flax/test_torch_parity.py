"""Logits, gradients and captions against VisionEncoderDecoderModel of torch, from equal weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

import jax  # noqa: E402 (after the skip)
import numpy as np  # noqa: E402
from transformers import (  # noqa: E402
    GenerationConfig,
    VisionEncoderDecoderModel,
)

from captionkit.backends.flax.generate import generate  # noqa: E402
from captionkit.backends.flax.loss import IGNORED, caption_loss  # noqa: E402
from captionkit.backends.flax.models import family_of  # noqa: E402
from captionkit.recipe import Decoding  # noqa: E402

FAMILY = family_of("vision-encoder-decoder")
apply = jax.jit(FAMILY.apply, static_argnums=0, static_argnames=("dtype", "remat", "unroll"))
encode = jax.jit(FAMILY.encode, static_argnums=0)
decode = jax.jit(FAMILY.decode, static_argnums=0)

# odd head counts, images that are not square, patches that leave a rest, unequal widths, tied and
# untied heads, other activations, epsilons and attention scales
CONFIGURATIONS = {
    "plain": ({}, {}),
    "odd heads, wide image": (
        {"num_attention_heads": 5, "hidden_size": 35, "image_size": [16, 40],
         "num_hidden_layers": 3},
        {"n_head": 7, "n_embd": 35, "n_layer": 1, "activation_function": "relu"},
    ),
    "tall image, a rest beyond the last patch": (
        {"image_size": [37, 20], "patch_size": [8, 6], "layer_norm_eps": 1e-3, "qkv_bias": False},
        {"n_inner": 50, "layer_norm_epsilon": 1e-2, "tie_word_embeddings": False},
    ),
    "inverse layer scale": (
        {"hidden_act": "gelu_new", "num_hidden_layers": 1},
        {"scale_attn_by_inverse_layer_idx": True, "n_layer": 4, "activation_function": "gelu"},
    ),
    "no attention scale, one head": (
        {"num_attention_heads": 1, "hidden_act": "quick_gelu"},
        {"scale_attn_weights": False, "n_head": 1, "n_embd": 24, "activation_function": "silu"},
    ),
    "deit": (
        {"model_type": "deit", "image_size": 24},
        {"reorder_and_upcast_attn": True, "tie_word_embeddings": False, "n_head": 8},
    ),
    "deit, narrow to wide": (
        {"model_type": "deit", "hidden_size": 9, "intermediate_size": 7},
        {"n_embd": 44, "n_head": 11, "n_positions": 9},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def models(request, make, tmp_path_factory):
    """(torch model, config, graphdef, parameters) from the same file."""
    folder = tmp_path_factory.mktemp("parity")
    config = make.config(*CONFIGURATIONS[request.param])
    make.checkpoint(folder, config, make.tensors(make.shapes(config), seed=len(request.param)))
    return both(folder)


def both(folder):
    model, report = VisionEncoderDecoderModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    config = FAMILY.config_of(folder)
    return model.eval(), config, FAMILY.abstract(config)[0], FAMILY.load_params(folder, config)


def inputs_for(config, batch=3, length=7, seed=0):
    draw = np.random.default_rng(seed)
    pixels = draw.normal(size=(batch, *config.encoder.image_size, 3)).astype(np.float32)
    ids = draw.integers(4, config.decoder.vocab_size, (batch, length))
    mask = np.arange(length)[None] < draw.integers(3, length + 1, (batch, 1))
    ids[:, 0] = 2
    return pixels, np.where(mask, ids, 0), mask.astype(int)


def torch_logits(model, pixels, ids, mask):
    return model(
        pixel_values=torch.tensor(pixels).permute(0, 3, 1, 2),
        decoder_input_ids=torch.tensor(ids),
        decoder_attention_mask=torch.tensor(mask),
    ).logits


def test_logits(models):
    model, config, graphdef, params = models
    pixels, ids, mask = inputs_for(config)
    with torch.no_grad():
        theirs = torch_logits(model, pixels, ids, mask).numpy()
    ours = np.asarray(apply(graphdef, params, pixels, ids, mask))
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 1  # nothing trivial is compared
    assert np.abs(ours - theirs)[mask == 1].max() < 1e-4
    states = encode(graphdef, params, pixels)
    from_states = decode(graphdef, params, states, ids, mask)
    assert np.abs(np.asarray(from_states) - theirs)[mask == 1].max() < 1e-4


def test_gradients(make, tmp_path):
    config = make.config({"num_hidden_layers": 2, "initializer_range": 0.02},
                         {"n_layer": 2, "initializer_range": 0.02})  # fmt: skip
    make.checkpoint(tmp_path, config, {})
    config = FAMILY.config_of(tmp_path)
    FAMILY.save_params(tmp_path, FAMILY.init_params(config, 3), config)
    model, config, graphdef, params = both(tmp_path)
    pixels, ids, mask = inputs_for(config, batch=4)
    targets = np.where(mask == 1, np.roll(ids, -1, 1), IGNORED)

    logits = torch_logits(model, pixels, ids, mask).flatten(0, 1)
    wanted = torch.tensor(targets).flatten()
    torch.nn.functional.cross_entropy(
        logits, wanted, ignore_index=IGNORED, reduction="sum"
    ).backward()
    for parameter in model.parameters():  # saved, to have them under the names of the file
        gradient = parameter.grad
        parameter.data = torch.zeros_like(parameter) if gradient is None else gradient
    model.save_pretrained(tmp_path / "gradients")
    theirs = FAMILY.load_params(tmp_path / "gradients", config)
    total = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(theirs)))

    for options in ({}, {"remat": True, "unroll": True}):

        def loss(params, options=options):
            logits = apply(graphdef, params, pixels, ids, mask, **options)
            return caption_loss(logits, targets)

        ours = jax.jit(jax.grad(loss))(params)
        for (path, mine), yours in zip(
            jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
        ):
            # zero in exact arithmetic (of key biases) is noise in theirs and in ours
            size = max(np.linalg.norm(yours), 1e-6 * total)
            error = np.linalg.norm(np.asarray(mine) - yours) / size
            assert error <= 1e-4, (jax.tree_util.keystr(path), error)


# ---- generation --------------------------------------------------------------------------------


class Talker(NamedTuple):
    model: Any
    config: Any
    graphdef: Any
    params: Any
    pixels: np.ndarray
    states: Any


@pytest.fixture(scope="module", params=[0, 1, 2])
def talker(request, make, tmp_path_factory):
    """Models whose captions end at different lengths; the second has two end tokens."""
    folder = tmp_path_factory.mktemp("talker")
    config = make.config(
        {"image_size": 16}, {"n_layer": 3, "tie_word_embeddings": request.param > 0}
    )
    if request.param == 1:
        config["eos_token_id"] = [3, 11]
    tensors = make.tensors(make.shapes(config), seed=request.param)
    head = "transformer.wte" if request.param else "lm_head"
    tensors[f"decoder.{head}.weight"][[3, 11]] *= 2
    make.checkpoint(folder, config, tensors)
    model, config, graphdef, params = both(folder)
    pixels = np.random.default_rng(9).normal(size=(5, 16, 16, 3)).astype(np.float32)
    states = encode(graphdef, params, pixels)
    return Talker(model, config, graphdef, params, pixels, states)


def torch_captions(model, config, pixels, **settings):
    start, ends, pad = FAMILY.token_ids(config)
    tokens = {"decoder_start_token_id": start, "eos_token_id": list(ends), "pad_token_id": pad}
    output = model.generate(
        pixel_values=torch.tensor(pixels).permute(0, 3, 1, 2),
        generation_config=GenerationConfig(**settings, **tokens, do_sample=False),
    )
    return [until_end(row[1:], ends) for row in output.tolist()]


def until_end(ids, ends):
    at = next((i for i, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: at + 1]


def flax_captions(talker, **settings):
    found = generate(
        FAMILY, talker.graphdef, FAMILY.weights(talker.graphdef, talker.params), talker.states,
        Decoding(**settings),
        FAMILY.token_ids(talker.config),
    )  # fmt: skip
    ids, lengths = (np.asarray(x).reshape(-1, *x.shape[2:]) for x in found[:2])
    return [row[:length].tolist() for row, length in zip(ids, lengths)]


def assert_same_captions(talker, **settings):
    """Token for token; a difference counts only where torch's own scores are told apart."""
    model, pixels = talker.model, talker.pixels
    theirs = torch_captions(model, talker.config, pixels, **settings)
    ours = flax_captions(talker, **settings)
    per_image = settings.get("num_return_sequences", 1)
    for row, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        if mine != yours:
            image = pixels[row // per_image][None]
            penalty = settings.get("length_penalty", 1.0)
            scores = [torch_score(model, image, ids, penalty) for ids in (mine, yours)]
            assert abs(scores[0] - scores[1]) < 1e-4, (row, mine, yours, scores)
    return ours


@torch.no_grad()
def torch_score(model, image, ids, penalty):
    inputs = np.array([[2, *ids[:-1]]])
    log_probs = torch_logits(model, image, inputs, np.ones_like(inputs))[0].log_softmax(-1)
    return float(log_probs[range(len(ids)), ids].sum()) / len(ids) ** penalty


@pytest.mark.parametrize("length", [1, 6, 20])
def test_greedy_captions(talker, length):
    ours = assert_same_captions(talker, max_new_tokens=length)
    if length == 20:
        assert len({len(ids) for ids in ours}) > 1  # some end early


@pytest.mark.parametrize(("num_beams", "length"), [(2, 1), (2, 16), (4, 7), (4, 16), (8, 7)])
def test_beam_captions(talker, num_beams, length):
    for length_penalty in (1.0, 0.0, 2.0, -0.7):
        for early_stopping in (False, True):
            assert_same_captions(
                talker, num_beams=num_beams, max_new_tokens=length, length_penalty=length_penalty,
                early_stopping=early_stopping, num_return_sequences=2,
            )  # fmt: skip
