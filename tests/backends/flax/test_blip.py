"""BLIP without torch: its weights to and from files, and its config against what is refused."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.models.blip.config import BlipConfig
from captionkit.data.captions import decoder_pairs, encode_captions
from captionkit.errors import CheckpointError

FAMILY = family_of("blip")
BERT = "text_decoder.bert."


def blip_config(vision=None, text=None, **top):
    return {
        "model_type": "blip",
        "vision_config": {
            "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 5, "image_size": 8, "patch_size": 4, "initializer_range": 0.3,
            **(vision or {}),
        },
        "text_config": {
            "vocab_size": 9, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 5, "max_position_embeddings": 7, "initializer_range": 0.3,
            "bos_token_id": 8, "sep_token_id": 3, "pad_token_id": 0, **(text or {}),
        },
        **top,
    }  # fmt: skip


def blip_shapes(config):
    """Tensor names and shapes, as transformers writes them."""
    vision, text = config["vision_config"], config["text_config"]
    w, patch, inner = vision["hidden_size"], vision["patch_size"], vision["intermediate_size"]
    width, vocab = text["hidden_size"], text["vocab_size"]
    tokens = (vision["image_size"] // patch) ** 2 + 1
    embeddings = "vision_model.embeddings."
    shapes = {
        f"{embeddings}class_embedding": (1, 1, w),
        f"{embeddings}position_embedding": (1, tokens, w),
        f"{embeddings}patch_embedding.weight": (w, 3, patch, patch),
        f"{embeddings}patch_embedding.bias": (w,),
        f"{BERT}embeddings.word_embeddings.weight": (vocab, width),
        f"{BERT}embeddings.position_embeddings.weight": (text["max_position_embeddings"], width),
        "text_decoder.cls.predictions.bias": (vocab,),
    }
    modules = {
        "vision_model.post_layernorm": (w,), f"{BERT}embeddings.LayerNorm": (width,),
        "text_decoder.cls.predictions.transform.dense": (width, width),
        "text_decoder.cls.predictions.transform.LayerNorm": (width,),
    }  # fmt: skip
    for i in range(vision["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{i}"
        modules |= {
            f"{layer}.self_attn.qkv": (3 * w, w), f"{layer}.self_attn.projection": (w, w),
            f"{layer}.layer_norm1": (w,), f"{layer}.layer_norm2": (w,),
            f"{layer}.mlp.fc1": (inner, w), f"{layer}.mlp.fc2": (w, inner),
        }  # fmt: skip
    for i in range(text["num_hidden_layers"]):
        layer, inner = f"{BERT}encoder.layer.{i}", text["intermediate_size"]
        for attention, read in (("attention", width), ("crossattention", w)):
            modules |= {
                f"{layer}.{attention}.self.query": (width, width),
                f"{layer}.{attention}.self.key": (width, read),
                f"{layer}.{attention}.self.value": (width, read),
                f"{layer}.{attention}.output.dense": (width, width),
                f"{layer}.{attention}.output.LayerNorm": (width,),
            }  # fmt: skip
        modules |= {
            f"{layer}.intermediate.dense": (inner, width), f"{layer}.output.dense": (width, inner),
            f"{layer}.output.LayerNorm": (width,),
        }  # fmt: skip
    for name, shape in modules.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def load(folder):
    return FAMILY.load_params(folder, FAMILY.config_of(folder))


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(x.tobytes() == y.tobytes() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


# ---- weights -------------------------------------------------------------------------------------

SIZES = st.tuples(*[st.integers(1, 3)] * 2, st.integers(1, 11), st.integers(1, 9))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SIZES, SIZES, st.integers(4, 9), st.integers(1, 4), st.integers(0, 99))
def test_a_round_trip_changes_no_byte_of_any_tensor(
    make, tmp_path_factory, vision, text, image, patch, seed
):
    parts = [
        {"num_attention_heads": heads, "hidden_size": heads * width, "num_hidden_layers": layers,
         "intermediate_size": inner}
        for heads, width, layers, inner in (vision, text)
    ]  # fmt: skip
    config = blip_config({**parts[0], "image_size": image, "patch_size": patch}, parts[1])
    folder = tmp_path_factory.mktemp("round")
    tensors = make.tensors(blip_shapes(config), seed)
    make.checkpoint(folder, config, tensors)
    read = FAMILY.config_of(folder)
    FAMILY.save_params(folder / "again", load(folder), read)
    again = load_file(folder / "again" / "model.safetensors")
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert (again[name].shape, again[name].dtype) == (tensor.shape, tensor.dtype), name
        assert again[name].tobytes() == tensor.tobytes(), name
    assert FAMILY.config_of(folder / "again") == read
    # the names for freezing and decay are those of the file, each with its own parameter
    names = FAMILY.tensor_names(read)
    assert sorted(name for name, _, _ in names) == sorted(tensors)
    assert len({(path, layer) for _, path, layer in names}) == len(names)


@pytest.fixture(scope="module")
def tiny(make):
    config = blip_config()
    return config, make.tensors(blip_shapes(config))


def test_files_as_they_lie_on_the_hub_are_read(make, tiny, tmp_path):
    config, tensors = tiny
    expected = load(make.checkpoint(tmp_path / "a", config, tensors))
    head = "text_decoder.cls.predictions."
    old = {
        f"{BERT}embeddings.position_ids": np.arange(7)[None],
        f"{head}decoder.bias": tensors[f"{head}bias"],
        f"{head}decoder.weight": tensors[f"{BERT}embeddings.word_embeddings.weight"],
    }
    for name, tensor in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    assert equal(load(make.checkpoint(tmp_path / "b", config, old)), expected)
    # the one matrix under its other name
    del old[f"{BERT}embeddings.word_embeddings.weight"]
    assert equal(load(make.checkpoint(tmp_path / "c", config, old)), expected)


def test_a_head_of_its_own_is_refused(make, tiny, tmp_path):
    config, tensors = tiny
    head = {"text_decoder.cls.predictions.decoder.weight": np.ones((9, 6), np.float32)}
    with pytest.raises(CheckpointError, match=r"decoder\.weight differs from .*word_embeddings\.w"):
        load(make.checkpoint(tmp_path, config, tensors | head))


def test_missing_unknown_and_misshapen_tensors_are_all_listed(make, tiny, tmp_path):
    config, tensors = tiny
    changed = dict(tensors)
    del changed["vision_model.encoder.layers.1.self_attn.qkv.bias"]
    changed["itm_head.weight"] = np.zeros((2, 6), np.float32)
    # as a file of a decoder whose images were as wide as its text
    wide = f"{BERT}encoder.layer.0.crossattention.self.key.weight"
    changed[wide] = np.zeros((6, 6), np.float32)
    with pytest.raises(CheckpointError) as caught:
        load(make.checkpoint(tmp_path, config, changed))
    message = str(caught.value)
    assert "missing from the file: vision_model.encoder.layers.1.self_attn.qkv.bias\n" in message
    assert "unknown to the model: itm_head.weight\n" in message
    assert f"{wide} is (6, 6) instead of (6, 8)" in message


# ---- the config ----------------------------------------------------------------------------------


def test_a_bare_config_is_that_of_transformers():
    from transformers import BlipConfig as Theirs

    theirs, config = Theirs(), BlipConfig.from_dict({"model_type": "blip"}, "here")
    for ours, part in ((config.text, theirs.text_config), (config.vision, theirs.vision_config)):
        for name in (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "hidden_act", "layer_norm_eps", "initializer_range",
        ):  # fmt: skip
            assert getattr(ours, name) == getattr(part, name), name
    text = theirs.text_config
    assert config.text.vocab_size == text.vocab_size
    assert config.text.encoder_hidden_size == text.encoder_hidden_size
    assert config.text.hidden_dropout_prob == text.hidden_dropout_prob
    assert config.vision.attention_probs_dropout_prob == theirs.vision_config.attention_dropout
    assert FAMILY.token_ids(config) == (text.bos_token_id, (text.sep_token_id,), text.pad_token_id)
    assert FAMILY.text_limit(config) == text.max_position_embeddings
    assert FAMILY.image_size(config) == (theirs.vision_config.image_size,) * 2


def test_options_without_effect_change_nothing():
    expected = BlipConfig.from_dict(blip_config(), "here")
    hub = blip_config(
        {"model_type": "blip_vision_model", "dropout": 0.1, "projection_dim": 512,
         "initializer_factor": 1.0, "num_channels": 3},
        {"model_type": "blip_text_model", "encoder_hidden_size": 768, "projection_dim": 768,
         "is_decoder": True, "add_cross_attention": False, "eos_token_id": 2, "use_cache": True,
         "label_smoothing": 0.1, "initializer_factor": 1.0, "tie_word_embeddings": True},
        architectures=["BlipForConditionalGeneration"], image_text_hidden_size=256,
        logit_scale_init_value=2.6592, projection_dim=512, initializer_factor=1.0,
        initializer_range=0.02, label_smoothing=0.1, torch_dtype="float32", _commit_hash=None,
    )  # fmt: skip
    # transformers' own generation config ends with a token that BLIP never gives
    assert BlipConfig.from_dict(hub, "here", {"eos_token_id": 2}) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["BlipForQuestionAnswering"]}, "BlipForQuestionAnswering, which gives"),
        ({"tie_word_embeddings": False}, "here: tie_word_embeddings=False"),
        ({"qformer_config": {"hidden_size": 8}}, "qformer_config="),
        ({"vision_config": 3}, "vision_config=3"),
        ({"vision_config": {"image_size": [16, 24]}}, r"vision_config: image_size=\[16, 24\]"),
        ({"vision_config": {"hidden_act": "golu"}}, "activation 'golu'"),
        ({"vision_config": {"hidden_size": 25}}, "25 does not divide by 12 heads"),
        ({"vision_config": {"use_rotary": True}}, "vision_config: the option use_rotary=True"),
        ({"text_config": {"is_decoder": False}}, "text_config: is_decoder=False"),
        ({"text_config": {"tie_word_embeddings": False}}, "text_config: tie_word_embeddings=False"),
        ({"text_config": {"position_embedding_type": "relative_key"}}, "'relative_key'"),
        ({"text_config": {"sep_token_id": "[SEP]"}}, r"end token '\[SEP\]'"),
        ({"text_config": {"sep_token_id": None}}, "end token None"),
        ({"text_config": {"num_hidden_layers": 0}}, "num_hidden_layers=0"),
    ],
)
def test_what_is_not_supported_is_an_error_that_names_it(change, message):
    with pytest.raises(CheckpointError, match=message):
        BlipConfig.from_dict({"model_type": "blip", **change}, "here")


def test_a_model_from_scratch_takes_its_tokens_from_the_tokenizer(tmp_path, tokenizer):
    made = FAMILY.for_tokenizer(BlipConfig.from_dict({"model_type": "blip"}, "here"), tokenizer)
    assert made.text.vocab_size == len(tokenizer)
    tokens = tokenizer.cls_token_id, (tokenizer.sep_token_id,), tokenizer.pad_token_id
    assert FAMILY.token_ids(made) == tokens
    made = FAMILY.for_tokenizer(BlipConfig.from_dict(blip_config(), "here"), tokenizer)
    params = FAMILY.init_params(made, 0)
    assert not params["decoder"]["embeddings"]["word"]["embedding"][tokenizer.pad_token_id].any()
    FAMILY.save_params(tmp_path, params, made)
    assert FAMILY.config_of(tmp_path) == made
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["BlipForConditionalGeneration"]
    assert written["text_config"]["eos_token_id"] == tokenizer.sep_token_id
    assert written["text_config"]["vocab_size"] == len(tokenizer)


def test_captions_start_from_the_decoders_token_in_place_of_the_tokenizers(tokenizer):
    ids = encode_captions(tokenizer, ["red above blue."], own_start=FAMILY.own_start)[0]
    inputs, targets = decoder_pairs(ids, 38)
    assert inputs[0] == 38
    assert tokenizer.cls_token_id not in inputs
    assert targets[-1] == tokenizer.sep_token_id


# ---- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vision", "text", "places"),
    [
        ({}, {}, 0),
        ({"attention_dropout": 0.3}, {}, 1),  # in the loop over layers, which is written once
        ({}, {"attention_probs_dropout_prob": 0.3}, 2),  # to the text, to the image
        ({}, {"hidden_dropout_prob": 0.3}, 4),  # embeddings, thrice in the loop
    ],
)
def test_dropout_is_where_the_config_has_it(vision, text, places):
    config = BlipConfig.from_dict(blip_config(vision, text), "here")
    graphdef, params = FAMILY.abstract(config)[0], FAMILY.init_params(config, 0)
    pixels, ids = np.zeros((1, 8, 8, 3), np.float32), np.array([[8, 5, 6]])
    trace = jax.make_jaxpr(FAMILY.apply, static_argnums=0)
    key = jax.random.key(0)
    program = str(trace(graphdef, params, pixels, ids, None, dropout_key=key))
    assert program.count("name=_bernoulli") == places
