"""Weights to and from files: every tensor accounted for, nothing changed on the way."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.models.convert import nest
from captionkit.errors import CheckpointError
from captionkit.tensors import TensorFiles

FAMILY = family_of("vision-encoder-decoder")


def load(folder):
    return FAMILY.load_params(folder, FAMILY.config_of(folder))


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(x.tobytes() == y.tobytes() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.fixture(scope="module")
def tiny(make):
    """A config with its tensors, small enough to be changed in every test."""
    config = make.config({"hidden_size": 12, "num_attention_heads": 2}, {"n_embd": 8})
    return config, make.tensors(make.shapes(config))


CONFIGS = st.fixed_dictionaries(
    {
        "heads": st.integers(1, 5), "width": st.integers(1, 3), "layers": st.integers(1, 11),
        "inner": st.integers(1, 9), "image": st.tuples(st.integers(4, 9), st.integers(4, 9)),
        "patch": st.tuples(st.integers(1, 4), st.integers(1, 4)), "deit": st.booleans(),
        "bias": st.booleans(), "decoder_heads": st.integers(1, 3),
        "decoder_width": st.integers(1, 4), "decoder_layers": st.integers(1, 3),
        "tied": st.booleans(), "vocab": st.integers(4, 9),
    }
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONFIGS, st.integers(0, 99))
def test_a_round_trip_changes_no_byte_of_any_tensor(make, tmp_path_factory, c, seed):
    config = make.config(
        {
            "model_type": "deit" if c["deit"] else "vit", "num_attention_heads": c["heads"],
            "hidden_size": c["heads"] * c["width"], "num_hidden_layers": c["layers"],
            "intermediate_size": c["inner"], "image_size": list(c["image"]),
            "patch_size": list(c["patch"]), "qkv_bias": c["bias"],
        },
        {
            "n_head": c["decoder_heads"], "n_embd": c["decoder_heads"] * c["decoder_width"],
            "n_layer": c["decoder_layers"], "tie_word_embeddings": c["tied"],
            "vocab_size": c["vocab"],
        },
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("round")
    tensors = make.tensors(make.shapes(config), seed)
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


def test_layers_are_stacked_in_their_order(make, tmp_path):
    config = make.config({"num_hidden_layers": 11})
    tensors = make.tensors(make.shapes(config))
    params = load(make.checkpoint(tmp_path, config, tensors))
    for name, path, layer in FAMILY.tensor_names(FAMILY.config_of(tmp_path)):
        if name.endswith("intermediate.dense.weight"):
            leaf = params
            for key in path:
                leaf = leaf[key]
            np.testing.assert_array_equal(leaf[layer], tensors[name].T)


def test_sharded_files_and_other_precisions_are_read(make, tiny, tmp_path):
    config, tensors = tiny
    expected = load(make.checkpoint(tmp_path / "whole", config, tensors))
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    homes = {name: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for home in set(homes.values()):
        save_file({n: t for n, t in tensors.items() if homes[n] == home}, folder / home)
    index = {"metadata": {}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert equal(load(folder), expected)

    half = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    rounded = {name: tensor.astype(np.float32) for name, tensor in half.items()}
    make.checkpoint(tmp_path / "half", config, half)
    make.checkpoint(tmp_path / "rounded", config, rounded)
    assert equal(load(tmp_path / "half"), load(tmp_path / "rounded"))

    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        load(folder)


def test_bfloat16_files_are_read(make, tiny, tmp_path):
    import ml_dtypes

    config, tensors = tiny
    rounded = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    header, data = {}, b""
    for name, tensor in rounded.items():
        ends = [len(data), len(data) + tensor.nbytes]
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": ends}
        data += tensor.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    make.checkpoint(tmp_path, config, tensors)
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    read = TensorFiles(tmp_path)
    for name, tensor in rounded.items():
        np.testing.assert_array_equal(read[name], tensor.astype(np.float32))
    make.checkpoint(tmp_path / "f", config, {n: t.astype(np.float32) for n, t in rounded.items()})
    assert equal(load(tmp_path), load(tmp_path / "f"))


# ---- files as they lie on the hub --------------------------------------------------------------

IN_MEMORY = {  # transformers 5; the file's own name of a layer's part -> its new one
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def test_names_of_transformers_5_in_memory_are_read(make, tiny, tmp_path):
    config, tensors = tiny
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith("encoder.encoder.layer."):
            name = name.replace("encoder.encoder.layer.", "encoder.layers.")
            part = next((old for old in IN_MEMORY if f".{old}." in name), None)
            name = name.replace(part, IN_MEMORY[part]) if part else name
        renamed[name] = tensor
    assert not any("encoder.encoder" in name for name in renamed)
    expected = load(make.checkpoint(tmp_path / "a", config, tensors))
    assert equal(load(make.checkpoint(tmp_path / "b", config, renamed)), expected)


def test_what_is_no_weight_is_ignored(make, tiny, tmp_path):
    config, tensors = tiny
    extra = {}
    for layer in range(config["decoder"]["n_layer"]):
        for attention in ("attn", "crossattention"):
            name = f"decoder.transformer.h.{layer}.{attention}"
            extra[f"{name}.bias"] = np.tril(np.ones((1, 1, 24, 24), np.uint8))
            extra[f"{name}.masked_bias"] = np.array(-1e4, np.float32)
    extra["decoder.lm_head.weight"] = tensors["decoder.transformer.wte.weight"]
    extra["encoder.embeddings.mask_token"] = np.zeros((1, 1, 12), np.float32)
    expected = load(make.checkpoint(tmp_path / "a", config, tensors))
    assert equal(load(make.checkpoint(tmp_path / "b", config, tensors | extra)), expected)
    # or the head is there in place of the embedding it is tied to
    head = {n: t for n, t in (tensors | extra).items() if n != "decoder.transformer.wte.weight"}
    assert equal(load(make.checkpoint(tmp_path / "c", config, head)), expected)
    # a part without its prefix
    bare = {name.replace("decoder.transformer.", "decoder."): t for name, t in tensors.items()}
    assert equal(load(make.checkpoint(tmp_path / "d", config, bare)), expected)


def test_a_head_that_is_said_to_be_tied_and_is_not_is_an_error(make, tiny, tmp_path):
    config, tensors = tiny
    head = {"decoder.lm_head.weight": tensors["decoder.transformer.wte.weight"] + 1}
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs"):
        load(make.checkpoint(tmp_path, config, tensors | head))


def test_a_file_without_the_pooler_gets_zeros(make, tiny, tmp_path):
    config, tensors = tiny
    without = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
    params = load(make.checkpoint(tmp_path, config, without))
    assert not params["encoder"]["pooler"]["kernel"].any()
    patterns = [re.compile(p.replace(".", r"\.").replace("*", ".*")) for p in FAMILY.untrained]
    untrained = {n for n in tensors if any(p.fullmatch(n) for p in patterns)}
    assert untrained == {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}


def as_flax(tensors):
    """Names and layouts of the Flax models of transformers 4."""
    flat = {}
    for name, tensor in tensors.items():
        parent, leaf = name.rsplit(".", 1)
        if leaf == "weight":
            norm = parent.rsplit(".", 1)[-1].startswith(("ln_", "layernorm"))
            embedding = parent.endswith(("wte", "wpe"))
            leaf = "scale" if norm else "embedding" if embedding else "kernel"
        if leaf == "kernel":
            tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
        flat[f"{parent}.{leaf}"] = np.ascontiguousarray(tensor)
    return nest(flat)


def test_a_msgpack_of_transformers_4_is_read(make, tiny, tmp_path):
    config, tensors = tiny
    expected = load(make.checkpoint(tmp_path, config, tensors))
    (tmp_path / "model.safetensors").unlink()
    whole = tmp_path / "flax_model.msgpack"
    whole.write_bytes(msgpack_serialize(as_flax(tensors)))
    assert equal(load(tmp_path), expected)

    whole.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"flax_model.msgpack is damaged or cut off"):
        load(tmp_path)
    whole.write_bytes(msgpack_serialize({"a": {"b": 3}}))
    with pytest.raises(CheckpointError, match=r"a\.b is no array but int"):
        load(tmp_path)
    whole.write_bytes(b"\x01")
    with pytest.raises(CheckpointError, match="parameters by name"):
        load(tmp_path)
    whole.write_bytes(b"\x81\x07\xc0")  # {7: nil}
    with pytest.raises(CheckpointError, match=r"7 is no parameter's name|int is not allowed"):
        load(tmp_path)


def test_a_sharded_msgpack_is_read(make, tiny, tmp_path):
    config, tensors = tiny
    expected = load(make.checkpoint(tmp_path, config, tensors))
    (tmp_path / "model.safetensors").unlink()
    homes = {}
    for part in ("encoder", "decoder", "enc_to_dec_proj"):
        mine = {n: t for n, t in tensors.items() if n.startswith(f"{part}.")}
        (tmp_path / f"{part}.msgpack").write_bytes(msgpack_serialize(as_flax(mine)))
        homes |= {name.replace(".", "/"): f"{part}.msgpack" for name in mine}
    index = tmp_path / "flax_model.msgpack.index.json"
    index.write_text(json.dumps({"weight_map": homes}))
    assert equal(load(tmp_path), expected)
    (tmp_path / "decoder.msgpack").unlink()
    with pytest.raises(CheckpointError, match=r"decoder.msgpack is missing"):
        load(tmp_path)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map"):
        load(tmp_path)


# ---- files that do not fit ---------------------------------------------------------------------


def test_missing_unknown_and_misshapen_tensors_are_all_listed(make, tiny, tmp_path):
    config, tensors = tiny
    changed = dict(tensors)
    del changed["decoder.transformer.h.1.mlp.c_fc.bias"]
    changed["encoder.embeddings.register_tokens"] = np.zeros((1, 4, 12), np.float32)
    changed["encoder.layernorm.weight"] = np.zeros(13, np.float32)
    changed["enc_to_dec_proj.weight"] = tensors["enc_to_dec_proj.weight"].T.copy()
    with pytest.raises(CheckpointError) as caught:
        load(make.checkpoint(tmp_path, config, changed))
    message = str(caught.value)
    assert "missing from the file: decoder.transformer.h.1.mlp.c_fc.bias\n" in message
    assert "unknown to the model: encoder.embeddings.register_tokens\n" in message
    assert "encoder.layernorm.weight is (13,) instead of (12,)" in message
    assert "enc_to_dec_proj.weight is (12, 8) instead of (8, 12)" in message
    assert str(tmp_path) in message


def test_a_config_of_another_depth_names_the_layers(make, tiny, tmp_path):
    config, tensors = tiny
    deeper = {**config, "decoder": {**config["decoder"], "n_layer": 3}}
    with pytest.raises(CheckpointError, match=r"missing.*h\.2\.attn.* and 14 more"):
        load(make.checkpoint(tmp_path, deeper, tensors))
    shallower = {**config, "decoder": {**config["decoder"], "n_layer": 1}}
    with pytest.raises(CheckpointError, match=r"unknown.*h\.1\.attn"):
        load(make.checkpoint(tmp_path, shallower, tensors))


def test_files_that_cannot_be_read_are_explained(make, tiny, tmp_path):
    config, tensors = tiny
    folder = make.checkpoint(tmp_path, config, tensors)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"holds no weights.*It holds: config.json"):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"only torch can read.*save_pretrained"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"index.json cannot be read"):
        load(folder)


def test_initial_values_are_seeded_and_as_transformers_draws_them(make, tmp_path):
    config = make.config(
        {"hidden_size": 48, "intermediate_size": 64, "initializer_range": 0.05},
        {"n_embd": 64, "n_layer": 3, "initializer_range": 0.04, "vocab_size": 300},
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = FAMILY.config_of(tmp_path)
    params = FAMILY.init_params(read, 7)
    assert equal(params, FAMILY.init_params(read, 7))
    assert not equal(params, FAMILY.init_params(read, 8))
    FAMILY.save_params(tmp_path, params, read)
    stds = {
        "encoder.embeddings.patch_embeddings.projection.weight": 0.05,
        "encoder.encoder.layer.0.attention.attention.query.weight": 0.05,
        "encoder.embeddings.position_embeddings": 0.05,
        "decoder.transformer.wte.weight": 0.04,
        "decoder.transformer.h.1.crossattention.c_attn.weight": 0.04,
        "decoder.transformer.h.1.mlp.c_proj.weight": 0.04 / 6**0.5,
        "decoder.transformer.h.2.crossattention.c_proj.weight": 0.04 / 6**0.5,
        "enc_to_dec_proj.weight": 0.04,
    }
    tensors = load_file(tmp_path / "model.safetensors")
    for name, std in stds.items():
        assert tensors[name].std() == pytest.approx(std, rel=0.1), name
        assert abs(tensors[name].mean()) < 4 * std / tensors[name].size ** 0.5, name
    norms = ("layernorm", "ln_")
    for name, tensor in tensors.items():
        if any(part.startswith(norms) for part in name.split(".")) and name.endswith("weight"):
            assert (tensor == 1).all(), name
        elif name.endswith("bias"):
            assert (tensor == 0).all(), name
    # two layers are not alike
    query = "encoder.encoder.layer.{}.attention.attention.query.weight"
    assert not np.array_equal(tensors[query.format(0)], tensors[query.format(1)])


def test_a_model_from_scratch_takes_its_tokens_from_the_tokenizer(make, tmp_path, tokenizer):
    config = make.config()
    for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        config.pop(name)
        config["decoder"].pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = FAMILY.for_tokenizer(FAMILY.config_of(tmp_path), tokenizer)
    assert made.decoder.vocab_size == len(tokenizer)
    assert FAMILY.token_ids(made) == (
        tokenizer.cls_token_id, (tokenizer.sep_token_id,), tokenizer.pad_token_id
    )  # fmt: skip
    FAMILY.save_params(tmp_path, FAMILY.init_params(made, 0), made)
    assert FAMILY.config_of(tmp_path) == made
