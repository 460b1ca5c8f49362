"""BLIP in Flax against BlipForConditionalGeneration of torch, from equal weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

import jax  # noqa: E402 (after the skip)
import numpy as np  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from transformers import (  # noqa: E402
    BlipConfig,
    BlipForConditionalGeneration,
    GenerationConfig,
    Trainer,
)

import captionkit  # noqa: E402
from captionkit.backends.flax.generate import generate  # noqa: E402
from captionkit.backends.flax.loss import IGNORED, caption_loss  # noqa: E402
from captionkit.backends.flax.models import family_of  # noqa: E402
from captionkit.backends.flax.optimizer import flatten, trained_tensors  # noqa: E402
from captionkit.backends.torch.weights import named_as_saved  # noqa: E402
from captionkit.data.preprocess import Preprocessor  # noqa: E402
from captionkit.recipe import Decoding  # noqa: E402

FAMILY = family_of("blip")
apply = jax.jit(FAMILY.apply, static_argnums=0, static_argnames=("dtype", "remat", "unroll"))
encode = jax.jit(FAMILY.encode, static_argnums=0)

LONG = pytest.mark.long
START, END = 38, 3
TEXT = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40,
    "vocab_size": 40, "max_position_embeddings": 24, "bos_token_id": START, "sep_token_id": END,
    "eos_token_id": 7, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
VISION = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "image_size": 16, "patch_size": 8, "initializer_range": 0.3,
}  # fmt: skip

# odd head counts, unequal widths, one layer, patches that leave a rest, other activations and
# epsilons
CONFIGURATIONS = {
    "plain": ({}, {}),
    "odd heads, text wider than the image": (
        {"num_attention_heads": 7, "hidden_size": 35, "num_hidden_layers": 3},
        {"num_attention_heads": 5, "hidden_size": 15},
    ),
    "one layer, one head, an image wider than the text": (
        {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_act": "relu"},
        {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_act": "quick_gelu",
         "hidden_size": 40},
    ),
    "a rest beyond the last patch, other epsilons": (
        {"layer_norm_eps": 1e-2, "hidden_act": "gelu_new", "intermediate_size": 9},
        {"image_size": 29, "patch_size": 6, "layer_norm_eps": 1e-3},
    ),
    "no padding token, many layers": (
        {"pad_token_id": None, "num_hidden_layers": 5, "num_attention_heads": 3},
        {"num_hidden_layers": 4, "image_size": 12, "patch_size": 4, "hidden_act": "silu"},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _quickly():
    torch.set_num_threads(1)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


class Both(NamedTuple):
    model: Any
    config: Any
    graphdef: Any
    params: Any


def blip_config(text=None, vision=None):
    return BlipConfig(
        text_config={**TEXT, **(text or {})}, vision_config={**VISION, **(vision or {})}
    )


def both(folder, config, seed=0, spread=0.1, positions=None, end=0.0):
    """One file on both sides; biases and norms are random too.

    spread: what is added to every weight. positions: the same for text positions; far apart,
    captions do not repeat one word. end: what is added to the end token's bias.
    """
    torch.manual_seed(seed)
    model = BlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = positions if positions and "position_embeddings" in name else spread
            parameter.add_(torch.randn_like(parameter) * scale)
        model.text_decoder.cls.predictions.bias[END] += end
    model.save_pretrained(folder)
    config = FAMILY.config_of(folder)
    return Both(model, config, FAMILY.abstract(config)[0], FAMILY.load_params(folder, config))


def inputs_for(config, batch=3, length=7):
    draw = np.random.default_rng(0)
    pixels = draw.normal(size=(batch, *config.image_size, 3)).astype(np.float32)
    ids = draw.integers(4, config.text.vocab_size, (batch, length))
    mask = np.arange(length)[None] < draw.integers(3, length + 1, (batch, 1))
    ids[:, 0] = START
    return pixels, np.where(mask, ids, 0), mask.astype(int)


def torch_logits(model, pixels, ids, mask):
    return model(
        pixel_values=torch.tensor(pixels).permute(0, 3, 1, 2), input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask),
    ).logits  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits(name, tmp_path):
    model, config, graphdef, params = both(tmp_path, blip_config(*CONFIGURATIONS[name]))
    pixels, ids, mask = inputs_for(config)
    with torch.no_grad():
        theirs = torch_logits(model, pixels, ids, mask).numpy()
    ours = np.asarray(apply(graphdef, params, pixels, ids, mask))
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 1  # nothing trivial is compared
    assert np.abs(ours - theirs)[mask == 1].max() < 1e-4


@LONG
@pytest.mark.parametrize("options", [{}, {"remat": True, "unroll": True}])
def test_gradients(tmp_path, options):
    smaller = {"initializer_range": 0.02}
    text = {**smaller, "num_hidden_layers": 3, "hidden_size": 32}
    model, config, graphdef, params = both(tmp_path, blip_config(text, smaller), spread=0.02)
    pixels, ids, mask = inputs_for(config, batch=4)
    targets = np.where(mask == 1, np.roll(ids, -1, 1), IGNORED)
    torch.nn.functional.cross_entropy(
        torch_logits(model, pixels, ids, mask).flatten(0, 1), torch.tensor(targets).flatten(),
        ignore_index=IGNORED, reduction="sum",
    ).backward()  # fmt: skip
    for parameter in model.parameters():  # saved, to have them under the names of the file
        parameter.data = parameter.grad
    model.save_pretrained(tmp_path / "gradients")
    theirs = FAMILY.load_params(tmp_path / "gradients", config)
    total = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(theirs)))

    def loss(params):
        return caption_loss(apply(graphdef, params, pixels, ids, mask, **options), targets)

    ours = jax.jit(jax.grad(loss))(params)
    for (path, mine), yours in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        where = jax.tree_util.keystr(path)
        if "key']['bias" in where:  # zero in exact arithmetic: both have noise
            assert max(np.linalg.norm(mine), np.linalg.norm(yours)) <= 1e-6 * total, where
            continue
        size = max(np.linalg.norm(yours), 1e-6 * total)
        assert np.linalg.norm(np.asarray(mine) - yours) <= 1e-4 * size, where


def test_first_weights_are_distributed_as_those_of_transformers(tmp_path):
    config = blip_config(
        {"hidden_size": 48, "initializer_range": 0.05, "vocab_size": 300},
        {"hidden_size": 48, "initializer_range": 0.2},
    )
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).save_pretrained(tmp_path / "theirs")
    read = FAMILY.config_of(tmp_path / "theirs")
    FAMILY.save_params(tmp_path / "ours", FAMILY.init_params(read, 7), read)
    theirs, ours = (load_file(tmp_path / n / "model.safetensors") for n in ("theirs", "ours"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        slack = 6 * max(float(tensor.std()), 1e-9) / tensor.size**0.5  # six standard errors
        assert ours[name].mean() == pytest.approx(tensor.mean(), abs=slack), name
        assert ours[name].std() == pytest.approx(tensor.std(), abs=slack), name
    padding = "text_decoder.bert.embeddings.word_embeddings.weight"
    assert not ours[padding][0].any()
    assert not theirs[padding][0].any()


def test_decay_masks_and_frozen_tensors_are_those_of_the_trainer(tmp_path):
    model, config, _, params = both(tmp_path, blip_config())
    decayed = {id(model.get_parameter(n)) for n in Trainer.get_decay_parameter_names(None, model)}
    saved = named_as_saved(model)
    shapes = {path: leaf.shape for path, leaf in flatten(params).items()}
    names = FAMILY.tensor_names(config)
    assert {name for name, _, _ in names} == saved.keys()
    trained = trained_tensors(names, shapes, (), FAMILY.untrained)
    assert trained.count == sum(p.numel() for p in model.parameters())
    for name, path, _ in names:
        assert trained.decays["/".join(path)] == (id(saved[name]) in decayed), name
    presets = {
        "encoder": lambda name: not name.startswith("vision_model."),
        "decoder": lambda name: not name.startswith("text_decoder."),
        "all-but-cross-attention": lambda name: "crossattention" in name,
    }
    for preset, kept in presets.items():
        left = trained_tensors(names, shapes, [preset], FAMILY.untrained, "blip")
        assert left.count == sum(p.numel() for n, p in saved.items() if kept(n)), preset


# ---- generation --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talkers(tmp_path_factory):
    """Models of one configuration, which is compiled once; captions end at different lengths."""
    config = blip_config({"hidden_size": 32, "num_hidden_layers": 3})
    return [
        both(tmp_path_factory.mktemp("talker"), config, seed, positions=3.0, end=2.0)
        for seed in range(3)
    ]


def assert_same_captions(talker, prompt=(), **settings):
    """Token for token; a difference counts only where torch's own scores are told apart."""
    pixels = np.random.default_rng(9).normal(size=(4, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        decoder = talker.model.text_decoder
        output = decoder.generate(
            input_ids=torch.tensor([[START, *prompt]] * 4),
            encoder_hidden_states=talker.model.vision_model(
                torch.tensor(pixels).permute(0, 3, 1, 2)
            ).last_hidden_state,
            generation_config=GenerationConfig(
                **settings, do_sample=False, bos_token_id=START, eos_token_id=END, pad_token_id=0
            ),
        )
    rows = [row[1 + len(prompt) :] for row in output.tolist()]
    theirs = [row[: row.index(END) + 1] if END in row else row for row in rows]
    states = encode(talker.graphdef, talker.params, pixels)
    found = generate(
        FAMILY, talker.graphdef, FAMILY.weights(talker.graphdef, talker.params), states,
        Decoding(**settings),
        FAMILY.token_ids(talker.config), prompt=prompt,
    )  # fmt: skip
    ids, lengths, log_probs = (np.asarray(x).reshape(-1, *x.shape[2:]) for x in found)
    ours = [row[:length].tolist() for row, length in zip(ids, lengths)]
    per_image = settings.get("num_return_sequences", 1)
    for row, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        image = pixels[[row // per_image]]
        scores = torch_scores(talker.model, image, prompt, mine)
        assert log_probs[row, : len(mine)] == pytest.approx(scores, abs=1e-4)
        if mine != yours:
            penalty = settings.get("length_penalty", 1.0)
            of_both = [scores, torch_scores(talker.model, image, prompt, yours)]
            of_both = [sum(scores) / len(scores) ** penalty for scores in of_both]
            assert abs(of_both[0] - of_both[1]) < 1e-4, (row, mine, yours, of_both)
    return ours


@torch.no_grad()
def torch_scores(model, image, prompt, ids):
    """The log-probability of each generated token, from the pixels on, without a cache."""
    inputs = np.array([[START, *prompt, *ids[:-1]]])
    log_probs = torch_logits(model, image, inputs, np.ones_like(inputs))[0].log_softmax(-1)
    return log_probs[range(len(prompt), len(prompt) + len(ids)), ids].tolist()


@pytest.mark.parametrize("prompt", [(), pytest.param((9, 21), marks=LONG)])
def test_greedy_captions(talkers, prompt):
    settings = {"max_new_tokens": 20}
    ours = [ids for t in talkers for ids in assert_same_captions(t, prompt, **settings)]
    assert len({len(ids) for ids in ours}) > 2  # some end early
    assert len({tuple(ids) for ids in ours}) > 8


@pytest.mark.parametrize(
    ("num_beams", "length", "prompt"),
    [
        (4, 9, (9, 21)),
        pytest.param(2, 16, (), marks=LONG),
        pytest.param(2, 5, (30,), marks=LONG),
        pytest.param(4, 9, (), marks=LONG),
        pytest.param(8, 7, (), marks=LONG),
    ],
)
def test_beam_captions(talkers, num_beams, length, prompt):
    for talker in talkers:
        for length_penalty, early_stopping in (
            (1.0, False),
            (0.0, True),
            (2.0, True),
            (-0.7, False),
        ):
            assert_same_captions(
                talker, prompt, num_beams=num_beams, max_new_tokens=length,
                length_penalty=length_penalty, early_stopping=early_stopping,
                num_return_sequences=2,
            )  # fmt: skip


# ---- training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pairs, tokenizer):
    """Three equal steps from equal weights on both backends, without dropout."""
    home = tmp_path_factory.mktemp("runs")
    text = {"vocab_size": 40, "initializer_range": 0.1, "hidden_size": 32}
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(blip_config(text, {"initializer_range": 0.1}))
    model.save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    Preprocessor.square(16).save(home / "model")
    return home / "model", [
        captionkit.finetune(
            model=str(home / "model"), dataset=pairs[:12], backend=backend, max_steps=3,
            output_dir=str(home / backend), batch_size=4, logging_steps=1, learning_rate=2e-3,
            weight_decay=0.1, max_grad_norm=0.5, precision="fp32", test_size=0, save_steps=0,
            freeze=["vision_model.encoder.layers.0.*", "*position_embedding*"], warmup_steps=1,
        )
        for backend in ("torch", "flax")
    ]  # fmt: skip


def test_losses_and_weights_of_three_steps(runs):
    folder, (theirs, ours) = runs
    losses = [[row["loss"] for row in result.history if "loss" in row] for result in (theirs, ours)]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    before = load_file(folder / "model.safetensors")
    a, b = (load_file(result.output_dir / "model.safetensors") for result in (theirs, ours))
    assert a.keys() == b.keys() == before.keys()
    for name in before:
        moved = np.abs(a[name] - before[name]).max()
        assert (moved == 0) == ("encoder.layers.0." in name or "position_embed" in name), name
        difference = np.abs(a[name] - b[name])
        # the gradient of a key's bias is noise, which AdamW makes into steps of any sign
        if name.endswith("qkv.bias"):
            difference = np.delete(
                difference, np.s_[len(difference) // 3 : len(difference) * 2 // 3]
            )
        if not name.endswith("key.bias"):
            assert difference.max() <= 0.02 * moved, name


def test_what_either_wrote_the_other_and_transformers_load(runs, pairs):
    images = [image for image, _ in pairs[:4]]
    for result in runs[1]:
        _, report = BlipForConditionalGeneration.from_pretrained(
            result.output_dir, output_loading_info=True
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        captioners = [captionkit.load(result.output_dir, backend=b) for b in ("torch", "flax")]
        settings = {"num_beams": 2, "max_new_tokens": 8, "prompt": "red above"}
        captions = [c.caption(images, **settings) for c in captioners]
        assert [c.text for c in captions[0]] == [c.text for c in captions[1]]
        assert all(c.text.startswith("red above") for c in captions[1])
        assert [c.score for c in captions[0]] == pytest.approx(
            [c.score for c in captions[1]], abs=1e-4
        )
        losses = [c.loss(images, ["red above blue."] * 4) for c in captioners]
        assert losses[0][1] == losses[1][1] == 20
        assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
