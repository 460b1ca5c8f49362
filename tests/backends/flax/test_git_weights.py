"""GIT's weights to and from files: every tensor accounted for, nothing changed on the way."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from captionkit.backends.flax.models import family_of
from captionkit.errors import CheckpointError

FAMILY = family_of("git")
VISION = "git.image_encoder.vision_model."


def git_config(vision=None, **text):
    return {
        "model_type": "git", "vocab_size": 9, "hidden_size": 6, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 5, "max_position_embeddings": 7,
        "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "initializer_range": 0.3,
        "vision_config": {
            "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 3, "image_size": 8, "patch_size": 4, **(vision or {}),
        },
        **text,
    }  # fmt: skip


def git_shapes(config):
    """Tensor names and shapes, as transformers writes them."""
    vision, width, vocab = config["vision_config"], config["hidden_size"], config["vocab_size"]
    w, patch = vision["hidden_size"], vision["patch_size"]
    tokens = (vision["image_size"] // patch) ** 2 + 1
    projection = "git.visual_projection.visual_projection"
    shapes = {
        f"{VISION}embeddings.class_embedding": (w,),
        f"{VISION}embeddings.patch_embedding.weight": (w, 3, patch, patch),
        f"{VISION}embeddings.position_embedding.weight": (tokens, w),
        f"{projection}.0.weight": (width, w), f"{projection}.0.bias": (width,),
        f"{projection}.1.weight": (width,), f"{projection}.1.bias": (width,),
        "git.embeddings.word_embeddings.weight": (vocab, width),
        "git.embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "git.embeddings.LayerNorm.weight": (width,), "git.embeddings.LayerNorm.bias": (width,),
        "output.bias": (vocab,),
    }  # fmt: skip
    if not config.get("tie_word_embeddings"):
        shapes["output.weight"] = (vocab, width)
    modules = {f"{VISION}pre_layrnorm": (w,), f"{VISION}post_layernorm": (w,)}
    for i in range(vision["num_hidden_layers"]):
        layer, inner = f"{VISION}encoder.layers.{i}", vision["intermediate_size"]
        modules |= {f"{layer}.self_attn.{n}_proj": (w, w) for n in ("q", "k", "v", "out")}
        modules |= {f"{layer}.layer_norm{n}": (w,) for n in (1, 2)}
        modules |= {f"{layer}.mlp.fc1": (inner, w), f"{layer}.mlp.fc2": (w, inner)}
    for i in range(config["num_hidden_layers"]):
        layer, inner = f"git.encoder.layer.{i}", config["intermediate_size"]
        modules |= {
            f"{layer}.attention.self.{n}": (width, width) for n in ("query", "key", "value")
        }
        modules |= {
            f"{layer}.attention.output.dense": (width, width),
            f"{layer}.attention.output.LayerNorm": (width,),
            f"{layer}.intermediate.dense": (inner, width),
            f"{layer}.output.dense": (width, inner), f"{layer}.output.LayerNorm": (width,),
        }  # fmt: skip
    for name, shape in modules.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def load(folder):
    return FAMILY.load_params(folder, FAMILY.config_of(folder))


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(x.tobytes() == y.tobytes() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


CONFIGS = st.fixed_dictionaries(
    {
        "heads": st.integers(1, 5), "width": st.integers(1, 3), "layers": st.integers(1, 11),
        "inner": st.integers(1, 9), "image": st.integers(4, 9), "patch": st.integers(1, 4),
        "text_heads": st.integers(1, 3), "text_width": st.integers(1, 4),
        "text_layers": st.integers(1, 11), "tied": st.booleans(), "vocab": st.integers(4, 9),
    }
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONFIGS, st.integers(0, 99))
def test_a_round_trip_changes_no_byte_of_any_tensor(make, tmp_path_factory, c, seed):
    config = git_config(
        {
            "num_attention_heads": c["heads"], "hidden_size": c["heads"] * c["width"],
            "num_hidden_layers": c["layers"], "intermediate_size": c["inner"],
            "image_size": c["image"], "patch_size": c["patch"],
        },
        num_attention_heads=c["text_heads"], hidden_size=c["text_heads"] * c["text_width"],
        num_hidden_layers=c["text_layers"], vocab_size=c["vocab"], tie_word_embeddings=c["tied"],
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("round")
    tensors = make.tensors(git_shapes(config), seed)
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
    config = git_config()
    return config, make.tensors(git_shapes(config))


def test_files_as_they_lie_on_the_hub_are_read(make, tiny, tmp_path):
    config, tensors = tiny
    expected = load(make.checkpoint(tmp_path / "a", config, tensors))
    buffers = {
        "git.embeddings.position_ids": np.arange(7)[None],
        f"{VISION}embeddings.position_ids": np.arange(5)[None],
    }
    assert equal(load(make.checkpoint(tmp_path / "b", config, tensors | buffers)), expected)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert sum(name.endswith(".gamma") for name in old) == 5
    assert equal(load(make.checkpoint(tmp_path / "c", config, old)), expected)
    # a model without its prefixes
    bare = {
        name.removeprefix("git.").replace("vision_model.", ""): tensor
        for name, tensor in tensors.items()
    }
    assert equal(load(make.checkpoint(tmp_path / "d", config, bare)), expected)


def test_a_tied_head_may_lie_under_either_name(make, tiny, tmp_path):
    config, tensors = tiny
    config = {**config, "tie_word_embeddings": True}
    embedding = tensors["git.embeddings.word_embeddings.weight"]
    one = {name: t for name, t in tensors.items() if name != "output.weight"}
    expected = load(make.checkpoint(tmp_path / "a", config, one))
    both = one | {"output.weight": embedding}
    assert equal(load(make.checkpoint(tmp_path / "b", config, both)), expected)
    head = {name: t for name, t in both.items() if "word_embeddings" not in name}
    assert equal(load(make.checkpoint(tmp_path / "c", config, head)), expected)
    with pytest.raises(CheckpointError, match=r"output.weight differs from git\.embeddings"):
        load(make.checkpoint(tmp_path / "d", config, tensors))


def test_missing_unknown_and_misshapen_tensors_are_all_listed(make, tiny, tmp_path):
    config, tensors = tiny
    changed = dict(tensors)
    del changed["git.encoder.layer.1.intermediate.dense.bias"]  # of the last layer
    changed["git.img_temporal_embedding.0"] = np.zeros((1, 1, 4), np.float32)
    changed["output.bias"] = np.zeros(8, np.float32)
    with pytest.raises(CheckpointError) as caught:
        load(make.checkpoint(tmp_path, config, changed))
    message = str(caught.value)
    assert "missing from the file: git.encoder.layer.1.intermediate.dense.bias\n" in message
    assert "unknown to the model: git.img_temporal_embedding.0\n" in message
    assert "output.bias is (8,) instead of (9,)" in message
