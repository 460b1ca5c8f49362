"""The decoder against itself used the slow way, and its config against what must be refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.models.gpt2.config import GPT2Config
from captionkit.backends.flax.models.vision_encoder_decoder.config import Config
from captionkit.errors import CheckpointError

FAMILY = family_of("vision-encoder-decoder")
apply = jax.jit(FAMILY.apply, static_argnums=0, static_argnames=("dtype", "remat", "unroll"))
encode = jax.jit(FAMILY.encode, static_argnums=0)
decode = jax.jit(FAMILY.decode, static_argnums=0)


@pytest.fixture(scope="module")
def model(ved_folder):
    config = FAMILY.config_of(ved_folder)
    return config, FAMILY.abstract(config)[0], FAMILY.load_params(ved_folder, config)


@pytest.fixture(scope="module")
def states(model):
    _, graphdef, params = model
    pixels = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    return encode(graphdef, params, pixels)


IDS = np.array([[2, 5, 6, 7, 9, 4], [2, 8, 9, 12, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def test_no_position_sees_what_follows_it(model, states):
    _, graphdef, params = model
    logits = decode(graphdef, params, states, IDS, None)
    changed = IDS.copy()
    changed[:, 3:] = 11
    again = decode(graphdef, params, states, changed, None)
    np.testing.assert_array_equal(logits[:, :3], again[:, :3])
    assert not np.allclose(logits[:, 3:], again[:, 3:])


def test_padding_changes_nothing_where_there_is_text(model, states):
    _, graphdef, params = model
    with_mask = decode(graphdef, params, states, IDS, MASK)
    without = decode(graphdef, params, states, IDS, None)
    alone = decode(graphdef, params, states[1:], IDS[1:, :4], None)
    np.testing.assert_allclose(with_mask[1, :4], alone[0], atol=1e-5)
    np.testing.assert_allclose(with_mask[1, :4], without[1, :4], atol=1e-5)
    # masked positions are not looked at: in the middle that changes what follows
    hole = decode(graphdef, params, states, IDS, np.array([[1, 1, 0, 1, 1, 1]] * 2))
    assert not np.allclose(hole[0, 3:], without[0, 3:])


def test_every_layer_sees_the_image(model, states):
    _, graphdef, params = model
    other = decode(graphdef, params, states[::-1], IDS, MASK)
    assert not np.allclose(other, decode(graphdef, params, states, IDS, MASK))


@pytest.mark.parametrize("scaled", [False, True])
def test_decoding_step_by_step_gives_the_teacher_forced_logits(model, states, scaled):
    config, graphdef, params = model
    if scaled:
        values = json.loads(config.source)
        values["decoder"]["scale_attn_by_inverse_layer_idx"] = True
        graphdef, _ = FAMILY.abstract(Config.from_dict(values, "here"))
    expected = decode(graphdef, params, states, IDS, None)
    # two lanes an image: the other lane runs through the same tokens backwards
    lanes = np.stack([IDS, np.concatenate([IDS[:, :1], IDS[:, :0:-1]], 1)], 1)
    reverse = decode(graphdef, params, states, lanes[:, 1], None)
    prepared, cache = FAMILY.start_decoding(
        graphdef, FAMILY.weights(graphdef, params), states, 2, 8
    )
    for t in range(IDS.shape[1]):
        logits, cache = FAMILY.decode_step(graphdef, prepared, cache, lanes[:, :, t], t)
        logits = logits.reshape(2, 2, -1)
        np.testing.assert_allclose(logits[:, 0], expected[:, t], atol=2e-5)
        np.testing.assert_allclose(logits[:, 1], reverse[:, t], atol=2e-5)


def test_keys_and_values_of_the_image_are_not_copied_for_lanes(model, states):
    _, graphdef, params = model
    prepared, cache = FAMILY.start_decoding(
        graphdef, FAMILY.weights(graphdef, params), states, 8, 5
    )
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(prepared.cross))
    assert all((leaf.shape[0], leaf.shape[2]) == (16, 5) for leaf in jax.tree.leaves(cache))


def test_bfloat16_computes_in_bfloat16_from_float32_parameters(model):
    _, graphdef, params = model
    pixels = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    exact = apply(graphdef, params, pixels, IDS, MASK)
    half = apply(graphdef, params, pixels, IDS, MASK, dtype=jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    error = np.abs(half.astype(np.float32) - exact)
    assert 0 < error.mean() < 0.05 * np.abs(exact).mean()


def test_dropout_is_where_the_config_has_it(model):
    config, _, params = model
    pixels = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    values = json.loads(config.source)
    plain = apply(FAMILY.abstract(config)[0], params, pixels, IDS, MASK)
    seen = []
    for part, name in [
        ("encoder", "hidden_dropout_prob"), ("encoder", "attention_probs_dropout_prob"),
        ("decoder", "embd_pdrop"), ("decoder", "resid_pdrop"), ("decoder", "attn_pdrop"),
    ]:  # fmt: skip
        changed = {**values, part: {**values[part], name: 0.3}}
        graphdef, _ = FAMILY.abstract(Config.from_dict(changed, "here"))
        key = jax.random.key(0)
        dropped = apply(graphdef, params, pixels, IDS, MASK, dropout_key=key)
        assert not np.allclose(dropped, plain), name
        assert not any(np.allclose(dropped, other) for other in seen), name
        seen.append(dropped)
    np.testing.assert_array_equal(apply(graphdef, params, pixels, IDS, MASK), plain)


GPT2 = {"model_type": "gpt2", "is_decoder": True, "add_cross_attention": True}


def test_a_bare_config_is_the_smallest_gpt2():
    config = GPT2Config.from_dict(GPT2, "here")
    assert (config.n_embd, config.n_layer, config.n_head, config.n_inner) == (768, 12, 12, 3072)
    renamed = GPT2Config.from_dict({**GPT2, "hidden_size": 48, "num_attention_heads": 4}, "here")
    assert (renamed.n_embd, renamed.n_head, renamed.attention_scale) == (48, 4, 12**-0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add_cross_attention": False}, "add_cross_attention=False"),
        ({"is_decoder": None}, "is_decoder=None"),
        ({"n_embd": 7}, "7 does not divide by 12"),
        ({"cross_attention_hidden_size": 512}, "cross_attention_hidden_size=512"),
        ({"activation_function": "gelu_newer"}, "'gelu_newer'"),
        ({"rotary_dim": 64}, "rotary_dim=64"),
        ({"vocab_size": "50k"}, "vocab_size='50k'"),
        ({"attn_pdrop": True}, "attn_pdrop=True"),
    ],
)
def test_what_is_not_supported_is_an_error_that_names_it(change, message):
    with pytest.raises(CheckpointError, match=message):
        GPT2Config.from_dict({**GPT2, **change}, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder": {"model_type": "opt"}}, "decoder of type 'opt'.*Supported: gpt2, bert"),
        ({"encoder": {"model_type": "swin"}}, "encoder of type 'swin'.*Supported: vit, deit, clip"),
        ({"encoder": None}, "no part 'encoder'"),
        ({"tie_encoder_decoder": True}, "tie_encoder_decoder=True"),
        ({"decoder_start_token_id": "[CLS]"}, "start token '\\[CLS\\]'"),
    ],
)
def test_models_of_other_parts_are_refused(model, change, message):
    values = json.loads(model[0].source)
    with pytest.raises(CheckpointError, match=message):
        Config.from_dict({**values, **change}, "config.json")


def test_token_ids_come_from_the_generation_config_first(model):
    values = json.loads(model[0].source)
    config = Config.from_dict(values, "here", {"eos_token_id": [3, 7], "bos_token_id": 9})
    assert FAMILY.token_ids(config) == (2, (3, 7), 0)
    for part in (values, values["decoder"]):
        for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
            part.pop(name, None)
    assert FAMILY.token_ids(Config.from_dict(values, "here")) == (50256, (50256,), 50256)
