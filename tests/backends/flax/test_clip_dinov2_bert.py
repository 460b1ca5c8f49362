"""CLIP and DINOv2 as encoders and BERT as a decoder, against VisionEncoderDecoderModel of torch."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

import jax  # noqa: E402 (after the skip)
import numpy as np  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    CLIPVisionConfig,
    Dinov2Config,
    GenerationConfig,
    GPT2Config,
    Trainer,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)

from captionkit.backends.flax.generate import generate  # noqa: E402
from captionkit.backends.flax.loss import IGNORED, caption_loss  # noqa: E402
from captionkit.backends.flax.models import family_of  # noqa: E402
from captionkit.backends.flax.models.dinov2.modeling import bicubic_weights  # noqa: E402
from captionkit.backends.flax.models.vision_encoder_decoder.config import Config  # noqa: E402
from captionkit.backends.flax.optimizer import flatten, trained_tensors  # noqa: E402
from captionkit.backends.torch.weights import named_as_saved  # noqa: E402
from captionkit.errors import CheckpointError  # noqa: E402
from captionkit.recipe import Decoding  # noqa: E402

FAMILY = family_of("vision-encoder-decoder")
apply = jax.jit(FAMILY.apply, static_argnums=0, static_argnames=("dtype", "remat", "unroll"))
encode = jax.jit(FAMILY.encode, static_argnums=0)

LONG = pytest.mark.long
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
STD = {"initializer_range": 0.1}


def clip(**options):
    defaults = {**SIZES, **STD, "intermediate_size": 40, "image_size": 16, "patch_size": 8}
    return CLIPVisionConfig(**{**defaults, **options})


def dinov2(**options):
    defaults = {**SIZES, **STD, "mlp_ratio": 2, "image_size": 16, "patch_size": 8}
    return Dinov2Config(**{**defaults, **options})


def bert(**options):
    defaults = {**SIZES, **STD, **DROPOUT, "intermediate_size": 40, "vocab_size": 40,
                "max_position_embeddings": 24, "bos_token_id": 2, "eos_token_id": 3}  # fmt: skip
    return BertConfig(**{**defaults, **options})


def gpt2(**options):
    defaults = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 24, "vocab_size": 40,
                "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
                "bos_token_id": 2, "eos_token_id": 3, **STD}  # fmt: skip
    return GPT2Config(**{**defaults, **options})


MODELS = {
    "clip, bert": (clip(), bert()),
    "clip, bert of another width": (
        clip(hidden_size=35, num_attention_heads=7, hidden_act="gelu", image_size=29, patch_size=6,
             layer_norm_eps=1e-3, num_hidden_layers=3),
        bert(num_hidden_layers=1, hidden_act="relu", layer_norm_eps=1e-2, type_vocab_size=5),
    ),
    "dinov2, gpt2": (dinov2(layerscale_value=0.7), gpt2()),
    "dinov2 with gates, bert": (
        dinov2(use_swiglu_ffn=True, hidden_size=15, num_attention_heads=5, qkv_bias=False,
               use_mask_token=False, image_size=23, patch_size=6),
        bert(num_attention_heads=2, hidden_act="gelu_new"),
    ),
}  # fmt: skip


class Both(NamedTuple):
    model: Any
    config: Any
    graphdef: Any
    params: Any
    folder: Any


@pytest.fixture(autouse=True, scope="module")
def _quickly():
    torch.set_num_threads(1)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def joined(encoder, decoder):
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 2, 3, 0
    return config


@pytest.fixture(scope="module", params=MODELS)
def both(request, tmp_path_factory):
    """The same weights on both sides; those that begin as zeros or ones are random too."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(len(request.param))
    model = VisionEncoderDecoderModel(joined(*MODELS[request.param])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            far = "position_embeddings.weight" in name or "wpe" in name
            parameter.add_(torch.randn_like(parameter) * (2.0 if far else 0.15))
    model.save_pretrained(folder)
    config = FAMILY.config_of(folder)
    graphdef, params = FAMILY.abstract(config)[0], FAMILY.load_params(folder, config)
    return Both(model, config, graphdef, params, folder)


def images(config, count=3):
    size = config.image_size or (16 if config.encoder.patch_size == 8 else 23,) * 2
    return np.random.default_rng(0).normal(size=(count, *size, 3)).astype(np.float32)


def torch_logits(model, pixels, ids, mask):
    return model(
        pixel_values=torch.tensor(pixels).permute(0, 3, 1, 2), decoder_input_ids=torch.tensor(ids),
        decoder_attention_mask=torch.tensor(mask),
    ).logits  # fmt: skip


IDS = np.array([[2, 5, 6, 7, 9, 4], [2, 8, 9, 12, 0, 0], [2, 30, 31, 0, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])


def test_logits(both):
    pixels = images(both.config)
    with torch.no_grad():
        theirs = torch_logits(both.model, pixels, IDS, MASK).numpy()
    ours = np.asarray(apply(both.graphdef, both.params, pixels, IDS, MASK))
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 1  # nothing trivial is compared
    assert np.abs(ours - theirs)[MASK == 1].max() < 1e-4


def test_a_round_trip_changes_no_byte(both, tmp_path):
    FAMILY.save_params(tmp_path, both.params, both.config)
    before, after = (load_file(f / "model.safetensors") for f in (both.folder, tmp_path))
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert FAMILY.config_of(tmp_path) == both.config
    assert sorted(name for name, _, _ in FAMILY.tensor_names(both.config)) == sorted(before)


def test_decay_masks_and_trained_tensors_are_those_of_torch(both):
    model = both.model
    decayed = {id(model.get_parameter(n)) for n in Trainer.get_decay_parameter_names(None, model)}
    saved = named_as_saved(model)
    shapes = {path: leaf.shape for path, leaf in flatten(both.params).items()}
    names = FAMILY.tensor_names(both.config)
    trained = trained_tensors(names, shapes, (), FAMILY.untrained)
    everything = trained_tensors(names, shapes, ())
    model.zero_grad()
    torch_logits(model, images(both.config), IDS, MASK).square().sum().backward()
    for name, path, _ in names:
        if name in saved:  # some are joined in the file
            assert everything.decays["/".join(path)] == (id(saved[name]) in decayed), name
            gradient = saved[name].grad
            assert ("/".join(path) in trained.layers) == (gradient is not None), name


def captions_of_torch(both, pixels, **settings):
    output = both.model.generate(
        pixel_values=torch.tensor(pixels).permute(0, 3, 1, 2),
        generation_config=GenerationConfig(
            **settings, do_sample=False, decoder_start_token_id=2, eos_token_id=3, pad_token_id=0
        ),
    )
    rows = [row[1:] for row in output.tolist()]
    return [row[: row.index(3) + 1] if 3 in row else row for row in rows]


@pytest.mark.parametrize(
    ("both", "settings"),
    [
        ("clip, bert", {"num_beams": 4, "length_penalty": 2.0}),
        pytest.param("clip, bert", {}, marks=LONG),
        pytest.param("dinov2, gpt2", {"num_beams": 3}, marks=LONG),
        pytest.param("dinov2 with gates, bert", {"num_beams": 2}, marks=LONG),
    ],
    indirect=["both"],
)
def test_captions(both, settings):
    pixels = images(both.config, 4)
    settings = {"max_new_tokens": 10, **settings}
    theirs = captions_of_torch(both, pixels, **settings)
    states = encode(both.graphdef, both.params, pixels)
    found = generate(
        FAMILY, both.graphdef, FAMILY.weights(both.graphdef, both.params), states,
        Decoding(**settings),
        FAMILY.token_ids(both.config),
    )  # fmt: skip
    ids, lengths = np.asarray(found.ids)[:, 0].tolist(), np.asarray(found.lengths)[:, 0].tolist()
    assert [row[:n] for row, n in zip(ids, lengths)] == theirs


@LONG
@pytest.mark.parametrize("both", ["dinov2 with gates, bert"], indirect=True)
def test_gradients(both, tmp_path):
    targets = np.where(MASK == 1, np.roll(IDS, -1, 1), IGNORED)
    pixels = images(both.config)
    both.model.zero_grad()
    torch.nn.functional.cross_entropy(
        torch_logits(both.model, pixels, IDS, MASK).flatten(0, 1), torch.tensor(targets).flatten(),
        ignore_index=IGNORED, reduction="sum",
    ).backward()  # fmt: skip
    copy = VisionEncoderDecoderModel.from_pretrained(both.folder)
    for mine, theirs in zip(copy.parameters(), both.model.parameters(), strict=True):
        mine.data = torch.zeros_like(mine) if theirs.grad is None else theirs.grad
    copy.save_pretrained(tmp_path)
    theirs = FAMILY.load_params(tmp_path, both.config)
    total = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(theirs)))

    def loss(params):
        return caption_loss(apply(both.graphdef, params, pixels, IDS, MASK), targets)

    ours = jax.jit(jax.grad(loss))(both.params)
    for (path, mine), yours in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        where = jax.tree_util.keystr(path)
        if "key']['bias" in where:  # zero in exact arithmetic: both have noise
            assert max(np.linalg.norm(mine), np.linalg.norm(yours)) <= 1e-6 * total, where
            continue
        size = max(np.linalg.norm(yours), 1e-6 * total)
        assert np.linalg.norm(np.asarray(mine) - yours) <= 1e-4 * size, where


# ---- what each part has of its own -------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [(3, 5), (37, 16), (4, 4), (2, 9), (6, 1)])
def test_bicubic_weights_are_those_of_torch(old, new):
    values = torch.randn(1, 1, old, old, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.functional.interpolate(
        values, size=(new, new), mode="bicubic", align_corners=False
    )[0, 0].numpy()
    weights = bicubic_weights(old, new)
    np.testing.assert_allclose(weights @ values[0, 0].numpy() @ weights.T, theirs, atol=2e-6)


def test_dinov2_takes_images_of_any_size(tmp_path):
    torch.manual_seed(0)
    model = VisionEncoderDecoderModel(joined(dinov2(), gpt2(n_layer=1))).eval()
    model.save_pretrained(tmp_path)
    config = FAMILY.config_of(tmp_path)
    assert FAMILY.image_size(config) is None
    graphdef, params = FAMILY.abstract(config)[0], FAMILY.load_params(tmp_path, config)
    pixels = np.random.default_rng(1).normal(size=(2, 33, 24, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = model.encoder(torch.tensor(pixels).permute(0, 3, 1, 2)).last_hidden_state
        theirs = model.enc_to_dec_proj(theirs).numpy()
    ours = np.asarray(encode(graphdef, params, pixels))
    assert ours.shape == theirs.shape == (2, 13, 32)
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("encoder", [clip(hidden_size=48), dinov2(hidden_size=48)])
def test_first_weights_are_distributed_as_those_of_transformers(tmp_path, encoder):
    torch.manual_seed(0)
    model = VisionEncoderDecoderModel(joined(encoder, bert(vocab_size=300, hidden_size=48)))
    model.save_pretrained(tmp_path / "theirs")
    config = FAMILY.config_of(tmp_path / "theirs")
    FAMILY.save_params(tmp_path / "ours", FAMILY.init_params(config, 7), config)
    theirs, ours = (load_file(tmp_path / n / "model.safetensors") for n in ("theirs", "ours"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        slack = 6 * max(float(tensor.std()), 1e-9) / tensor.size**0.5  # six standard errors
        assert ours[name].mean() == pytest.approx(tensor.mean(), abs=slack), name
        assert ours[name].std() == pytest.approx(tensor.std(), abs=slack), name


@pytest.mark.parametrize("both", ["clip, bert"], indirect=True)
def test_files_as_they_lie_on_the_hub_are_read(both, tmp_path):
    tensors = load_file(both.folder / "model.safetensors")
    old = {
        "encoder.vision_model.embeddings.position_ids": np.arange(5)[None],
        "encoder.text_model.final_layer_norm.weight": np.zeros(3, np.float32),
        "encoder.logit_scale": np.zeros((), np.float32),
        "decoder.bert.embeddings.position_ids": np.arange(24)[None],
        "decoder.bert.pooler.dense.bias": np.zeros(24, np.float32),
        "decoder.cls.seq_relationship.bias": np.zeros(2, np.float32),
        "decoder.cls.predictions.decoder.bias": tensors["decoder.cls.predictions.bias"],
        "decoder.cls.predictions.decoder.weight": tensors[
            "decoder.bert.embeddings.word_embeddings.weight"
        ],
    }
    for name, tensor in tensors.items():
        name = name.replace("encoder.", "encoder.vision_model.", 1) if name[0] == "e" else name
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    (tmp_path / "config.json").write_text((both.folder / "config.json").read_text())
    save_file({n: np.ascontiguousarray(t) for n, t in old.items()}, tmp_path / "model.safetensors")
    again = FAMILY.load_params(tmp_path, both.config)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(both.params)))


@pytest.mark.parametrize(
    ("model", "part", "change", "message"),
    [
        ("clip, bert", "encoder", {"image_size": [16, 24]}, r"image_size=\[16, 24\]"),
        ("clip, bert", "encoder", {"hidden_act": "golu"}, "activation 'golu'"),
        ("clip, bert", "decoder", {"add_cross_attention": False}, "add_cross_attention=False"),
        ("clip, bert", "decoder", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("clip, bert", "decoder", {"position_embedding_type": "relative_key"}, "'relative_key'"),
        ("dinov2, gpt2", "encoder", {"drop_path_rate": 0.1}, "drop_path_rate=0.1"),
        ("dinov2, gpt2", "encoder", {"num_register_tokens": 4}, "num_register_tokens=4"),
        ("dinov2, gpt2", "encoder", {"hidden_size": 25}, "25 does not divide by 3 heads"),
    ],
)
def test_what_is_not_supported_is_an_error_that_names_it(model, part, change, message):
    values = json.loads(joined(*MODELS[model]).to_json_string(use_diff=False))
    Config.from_dict(values, "here")
    values[part] |= change
    with pytest.raises(CheckpointError, match=message):
        Config.from_dict(values, f"here, {part}")
