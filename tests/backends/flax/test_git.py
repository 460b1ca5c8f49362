"""GIT against itself used the slow way, and its config against what must be refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.models.git.config import GitConfig
from captionkit.errors import CheckpointError

FAMILY = family_of("git")
apply = jax.jit(FAMILY.apply, static_argnums=0, static_argnames=("dtype", "remat", "unroll"))
encode = jax.jit(FAMILY.encode, static_argnums=0)
decode = jax.jit(FAMILY.decode, static_argnums=0)

GIT = {
    "model_type": "git", "vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 12,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3,
    "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
    "vision_config": {
        "hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 28, "image_size": 16, "patch_size": 8, "initializer_range": 0.2,
    },
}  # fmt: skip
PIXELS = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
IDS = np.array([[2, 5, 6, 7, 9, 4], [2, 8, 9, 12, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@pytest.fixture(autouse=True, scope="module")
def _compiled_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def model():
    """(config, graphdef, params)"""
    config = GitConfig.from_dict(GIT, "here")
    return config, FAMILY.abstract(config)[0], FAMILY.init_params(config, 1)


@pytest.fixture(scope="module")
def states(model):
    _, graphdef, params = model
    return encode(graphdef, params, PIXELS)


def test_no_text_position_sees_what_follows_it(model, states):
    _, graphdef, params = model
    logits = decode(graphdef, params, states, IDS, None)
    assert logits.shape == (2, 6, 40)
    changed = IDS.copy()
    changed[:, 3:] = 11
    again = decode(graphdef, params, states, changed, None)
    np.testing.assert_array_equal(logits[:, :3], again[:, :3])
    assert not np.allclose(logits[:, 3:], again[:, 3:])
    other = decode(graphdef, params, states[::-1], IDS, None)
    assert not np.allclose(logits, other)  # and it sees the image


def test_padding_changes_nothing_where_there_is_text(model, states):
    _, graphdef, params = model
    with_mask = decode(graphdef, params, states, IDS, MASK)
    without = decode(graphdef, params, states, IDS, None)
    np.testing.assert_allclose(with_mask[1, :4], without[1, :4], atol=1e-5)
    # masked positions are not looked at: in the middle that changes what follows
    hole = decode(graphdef, params, states, IDS, np.array([[1, 1, 0, 1, 1, 1]] * 2))
    assert not np.allclose(hole[0, 3:], without[0, 3:])


@pytest.mark.parametrize("layers", [1, 3])
def test_decoding_step_by_step_gives_the_teacher_forced_logits(layers):
    config = GitConfig.from_dict(
        {**GIT, "num_hidden_layers": layers, "tie_word_embeddings": layers == 1}, "here"
    )
    graphdef, params = FAMILY.abstract(config)[0], FAMILY.init_params(config, 2)
    states = np.random.default_rng(1).normal(size=(2, 5, 24)).astype(np.float32)
    # two lanes an image: the other lane runs through the same tokens backwards
    lanes = np.stack([IDS, np.concatenate([IDS[:, :1], IDS[:, :0:-1]], 1)], 1)
    expected = [decode(graphdef, params, states, lanes[:, i], None) for i in range(2)]
    start = jax.jit(FAMILY.start_decoding, static_argnums=(0, 3, 4))
    step = jax.jit(FAMILY.decode_step, static_argnums=0)
    prepared, cache = start(graphdef, FAMILY.weights(graphdef, params), states, 2, 8)
    for t in range(IDS.shape[1]):
        logits, cache = step(graphdef, prepared, cache, lanes[:, :, t], t)
        for lane in range(2):
            np.testing.assert_allclose(
                logits.reshape(2, 2, -1)[:, lane], expected[lane][:, t], atol=5e-5
            )


def test_keys_and_values_of_the_image_are_not_copied_for_lanes(model, states):
    _, graphdef, params = model
    prepared, cache = jax.eval_shape(
        lambda w, s: FAMILY.start_decoding(graphdef, w, s, 8, 7),
        FAMILY.weights(graphdef, params),
        states,
    )
    assert all(leaf.shape == (2, 3, 5, 8) for leaf in jax.tree.leaves(prepared.image))
    assert all(leaf.shape == (16, 3, 7, 8) for leaf in jax.tree.leaves(cache))
    assert len(prepared.image) == len(cache) == 3


def program(graphdef, params):
    """One forward pass as StableHLO."""
    lowered = jax.jit(FAMILY.apply, static_argnums=0).lower(graphdef, params, PIXELS, IDS, None)
    return lowered.as_text()


def test_neither_vocabulary_nor_last_perceptron_is_computed_at_image_positions():
    # each size stands for one thing: 13 words, a perceptron 7 wide, 5 image tokens before 6 of text
    values = {**GIT, "vocab_size": 13, "intermediate_size": 7, "num_hidden_layers": 1}
    text = program(*FAMILY.abstract(GitConfig.from_dict(values, "here")))
    assert "tensor<2x6x13xf32>" in text
    assert "tensor<2x11x13xf32>" not in text
    assert "tensor<2x6x7xf32>" in text


def test_bfloat16_computes_in_bfloat16_from_float32_parameters(model, states):
    _, graphdef, params = model
    expected = decode(graphdef, params, states, IDS, MASK)
    half = apply(graphdef, params, PIXELS, IDS, MASK, dtype=jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    error = np.abs(half.astype(np.float32) - expected)
    assert 0 < error.mean() < 0.05 * np.abs(expected).mean()


def test_the_program_does_not_grow_with_depth():
    def size(layers):
        vision = {**GIT["vision_config"], "num_hidden_layers": layers}
        values = {**GIT, "num_hidden_layers": layers, "vision_config": vision}
        return len(program(*FAMILY.abstract(GitConfig.from_dict(values, "here"))).splitlines())

    assert size(12) == size(3)


def with_dropout(**rates):
    vision = {**GIT["vision_config"], "attention_dropout": rates.pop("vision", 0.0)}
    config = GitConfig.from_dict({**GIT, **rates, "vision_config": vision}, "here")
    return FAMILY.abstract(config)[0]


@pytest.mark.parametrize(
    ("rates", "places"),
    [
        ({}, 0),
        ({"vision": 0.3}, 1),  # in the loop over layers, which is written once
        ({"attention_probs_dropout_prob": 0.3}, 3),  # image and text in the loop, the last layer
        ({"hidden_dropout_prob": 0.3}, 5),  # embeddings, twice in the loop, twice in the last layer
    ],
)
def test_dropout_is_where_the_config_has_it(model, rates, places):
    graphdef = with_dropout(**rates)
    trace = jax.make_jaxpr(FAMILY.apply, static_argnums=0)
    program = str(trace(graphdef, model[2], PIXELS, IDS, MASK, dropout_key=jax.random.key(0)))
    assert program.count("name=_bernoulli") == places


def test_dropout_depends_on_the_key_and_needs_one(model, states):
    _, plain, params = model
    graphdef = with_dropout(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, vision=0.1)
    dropped = [
        apply(graphdef, params, PIXELS, IDS, MASK, dropout_key=jax.random.key(i)) for i in (0, 1, 0)
    ]
    without = decode(plain, params, states, IDS, MASK)
    assert not np.allclose(dropped[0], without)
    assert not np.allclose(dropped[0], dropped[1])
    np.testing.assert_array_equal(dropped[0], dropped[2])
    np.testing.assert_allclose(decode(graphdef, params, states, IDS, MASK), without, atol=1e-5)


# ---- the config ----------------------------------------------------------------------------------


def test_a_bare_config_is_git_base():
    config = GitConfig.from_dict({"model_type": "git"}, "here")
    text, vision = config.text, config.vision
    assert (text.hidden_size, text.num_hidden_layers, text.vocab_size) == (768, 6, 30522)
    assert (text.max_position_embeddings, text.tie_word_embeddings) == (1024, False)
    assert (vision.num_hidden_layers, vision.patch_size, vision.tokens) == (12, (16, 16), 197)
    assert FAMILY.token_ids(config) == (101, (102,), 0)
    assert (FAMILY.text_limit(config), FAMILY.image_size(config)) == (1024, (224, 224))


HUB = {  # what a config of transformers 4 holds besides
    "_commit_hash": None, "position_embedding_type": "absolute", "use_cache": True,
    "torch_dtype": "float32", "num_image_with_embedding": None,
    "vision_config": {
        **GIT["vision_config"], "model_type": "git_vision_model", "dropout": 0.1,
        "projection_dim": 512, "initializer_factor": 1.0, "temperature": 1.0,
    },
}  # fmt: skip


def test_options_without_effect_change_nothing(model):
    config = GitConfig.from_dict({**GIT, **HUB}, "here")
    assert config == model[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_image_with_embedding": 6}, r"6 video frames \(num_image_with_embedding=6\)"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"hidden_act": "golu"}, "activation 'golu'"),
        ({"hidden_size": 25}, "25 does not divide by 3 heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"rotary_dim": 64}, "rotary_dim=64"),
        ({"eos_token_id": "[SEP]"}, r"end token '\[SEP\]'"),
        ({"vision_config": {"image_size": [16, 24]}}, r"vision_config: image_size=\[16, 24\]"),
        ({"vision_config": {"num_channels": 1}}, "num_channels=1"),
        ({"vision_config": {"use_register_tokens": True}}, "use_register_tokens=True"),
        ({"vision_config": 3}, "vision_config=3"),
    ],
)
def test_what_is_not_supported_is_an_error_that_names_it(change, message):
    with pytest.raises(CheckpointError, match=message):
        GitConfig.from_dict({**GIT, **change}, "here")


def test_token_ids_come_from_the_generation_config_first(model):
    config = GitConfig.from_dict(GIT, "here", {"eos_token_id": [3, 7], "bos_token_id": 9})
    assert FAMILY.token_ids(config) == (9, (3, 7), 0)
    config = GitConfig.from_dict({**GIT, "pad_token_id": None}, "here")
    assert FAMILY.token_ids(config) == (2, (3,), 3)


def test_a_model_from_scratch_takes_its_tokens_from_the_tokenizer(tmp_path, tokenizer):
    values = {name: value for name, value in GIT.items() if not name.endswith("token_id")}
    made = FAMILY.for_tokenizer(GitConfig.from_dict(values, "here"), tokenizer)
    assert made.text.vocab_size == len(tokenizer)
    assert FAMILY.token_ids(made) == (
        tokenizer.cls_token_id, (tokenizer.sep_token_id,), tokenizer.pad_token_id
    )  # fmt: skip
    params = FAMILY.init_params(made, 0)
    assert not params["embeddings"]["word"]["embedding"][tokenizer.pad_token_id].any()
    FAMILY.save_params(tmp_path, params, made)
    assert FAMILY.config_of(tmp_path) == made
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["GitForCausalLM"]
