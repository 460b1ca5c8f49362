"""A tiny vision-encoder-decoder model made without torch, and a few pictures to learn."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest

pytest.importorskip("jax")
pytest.importorskip("flax")

import numpy as np
from pictures import sixteen_pairs
from safetensors.numpy import save_file

from captionkit.data.captions import build_word_tokenizer
from captionkit.data.preprocess import Preprocessor

ENCODER = {
    "model_type": "vit", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 40, "image_size": 32, "patch_size": 8, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "layer_norm_eps": 1e-12,
    "qkv_bias": True, "num_channels": 3, "initializer_range": 0.1,
}  # fmt: skip
DECODER = {
    "model_type": "gpt2", "vocab_size": 40, "n_positions": 24, "n_embd": 32, "n_layer": 2,
    "n_head": 2, "n_inner": None, "activation_function": "gelu_new", "resid_pdrop": 0.0,
    "embd_pdrop": 0.0, "attn_pdrop": 0.0, "layer_norm_epsilon": 1e-5, "is_decoder": True,
    "add_cross_attention": True, "tie_word_embeddings": True, "bos_token_id": 2,
    "eos_token_id": 3, "pad_token_id": 0, "initializer_range": 0.1,
}  # fmt: skip


def ved_config(encoder=None, decoder=None, **top):
    """config.json of a tiny model, with some options changed."""
    return {
        "model_type": "vision-encoder-decoder", "architectures": ["VisionEncoderDecoderModel"],
        "encoder": ENCODER | (encoder or {}), "decoder": DECODER | (decoder or {}),
        "decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
        "is_encoder_decoder": True, "tie_word_embeddings": False, **top,
    }  # fmt: skip


def vit_shapes(config):
    """Tensor names and shapes of a ViT or DeiT, as transformers writes them."""
    d, inner, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    height, width = np.broadcast_to(config["image_size"], 2).tolist()
    patch = np.broadcast_to(patch, 2).tolist()
    special = 2 if config["model_type"] == "deit" else 1
    tokens = (height // patch[0]) * (width // patch[1]) + special
    shapes = {
        "embeddings.cls_token": (1, 1, d),
        "embeddings.position_embeddings": (1, tokens, d),
        "embeddings.patch_embeddings.projection.weight": (d, 3, *patch),
        "embeddings.patch_embeddings.projection.bias": (d,),
        "layernorm.weight": (d,),
        "layernorm.bias": (d,),
        "pooler.dense.weight": (d, d),
        "pooler.dense.bias": (d,),
    }
    if special == 2:
        shapes["embeddings.distillation_token"] = (1, 1, d)
    linear = {
        "attention.attention.query": (d, d), "attention.attention.key": (d, d),
        "attention.attention.value": (d, d), "attention.output.dense": (d, d),
        "intermediate.dense": (inner, d), "output.dense": (d, inner),
        "layernorm_before": (d,), "layernorm_after": (d,),
    }  # fmt: skip
    for i in range(config["num_hidden_layers"]):
        for name, shape in linear.items():
            shapes[f"encoder.layer.{i}.{name}.weight"] = shape
            if config["qkv_bias"] or "attention.attention" not in name:
                shapes[f"encoder.layer.{i}.{name}.bias"] = shape[:1]
    return shapes


def gpt2_shapes(config, cross_attention=True):
    """Tensor names and shapes of a GPT-2 with its head, as transformers writes them."""
    d, vocab = config["n_embd"], config["vocab_size"]
    inner = config["n_inner"] or 4 * d
    shapes = {
        "transformer.wte.weight": (vocab, d),
        "transformer.wpe.weight": (config["n_positions"], d),
        "transformer.ln_f.weight": (d,),
        "transformer.ln_f.bias": (d,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, d)
    parts = {
        "ln_1": (d,), "attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d),
        "ln_2": (d,), "mlp.c_fc": (d, inner), "mlp.c_proj": (inner, d),
    }  # fmt: skip
    if cross_attention:
        parts |= {
            "ln_cross_attn": (d,), "crossattention.q_attn": (d, d),
            "crossattention.c_attn": (d, 2 * d), "crossattention.c_proj": (d, d),
        }  # fmt: skip
    for i in range(config["n_layer"]):
        for name, shape in parts.items():
            shapes[f"transformer.h.{i}.{name}.weight"] = shape
            shapes[f"transformer.h.{i}.{name}.bias"] = shape[-1:]
    return shapes


def ved_shapes(config):
    """Tensor names and shapes of the whole model."""
    shapes = {f"encoder.{name}": shape for name, shape in vit_shapes(config["encoder"]).items()}
    shapes |= {f"decoder.{name}": shape for name, shape in gpt2_shapes(config["decoder"]).items()}
    widths = config["decoder"]["n_embd"], config["encoder"]["hidden_size"]
    if widths[0] != widths[1]:
        shapes |= {"enc_to_dec_proj.weight": widths, "enc_to_dec_proj.bias": widths[:1]}
    return shapes


def random_tensors(shapes, seed=0):
    """Values for names and shapes: such that captions differ, and do not repeat one word."""
    draw = np.random.default_rng(seed)
    scales, tensors = {"wte": 0.2, "wpe": 3.0, "bias": 0.1}, {}
    for name, shape in shapes.items():
        value = draw.normal(size=shape).astype(np.float32)
        norm = any(part.startswith(("ln_", "layernorm")) for part in name.split("."))
        scale = next((s for part, s in scales.items() if part in name), 0.3)
        tensors[name] = value * 0.1 + 1 if norm and name.endswith("weight") else value * scale
    return tensors


def write_checkpoint(folder, config, tensors):
    """config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def make():
    """The functions above, for tests that make models of their own."""
    return SimpleNamespace(
        config=ved_config, vit_shapes=vit_shapes, gpt2_shapes=gpt2_shapes, shapes=ved_shapes,
        tensors=random_tensors, checkpoint=write_checkpoint,
    )  # fmt: skip


@pytest.fixture(scope="session")
def eight_devices(tmp_path_factory):
    """The environment of a process whose CPU is eight devices and whose warnings are errors."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        **os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip(),
        # old libraries call what their own dependencies have deprecated since
        "PYTHONWARNINGS": "error,ignore::DeprecationWarning",
    }  # fmt: skip


@pytest.fixture(scope="session")
def pairs():
    """Sixteen pictures, half one colour over another, with two captions each."""
    return sixteen_pairs()


@pytest.fixture(scope="session")
def tokenizer(pairs):
    return build_word_tokenizer(text for _, texts in pairs for text in texts)


@pytest.fixture(scope="session")
def ved_folder(tmp_path_factory, tokenizer):
    """A checkpoint folder with random weights, tokenizer and image processor."""
    folder = tmp_path_factory.mktemp("tiny-ved")
    config = ved_config(decoder={"vocab_size": len(tokenizer)})
    tensors = random_tensors(ved_shapes(config))
    tensors["decoder.transformer.wte.weight"][3] *= 1.5  # captions of different lengths
    write_checkpoint(folder, config, tensors)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(32).save(folder)
    return folder


@pytest.fixture(scope="session")
def captioner(ved_folder):
    from captionkit.backends.flax.captioner import load_captioner

    return load_captioner(ved_folder, device="cpu")
