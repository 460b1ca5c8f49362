"""GIT in Flax against GitForCausalLM of torch, from equal weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

import jax  # noqa: E402 (after the skip)
import numpy as np  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from transformers import GenerationConfig, GitConfig, GitForCausalLM, Trainer  # noqa: E402

import captionkit  # noqa: E402
from captionkit.backends.flax.generate import generate  # noqa: E402
from captionkit.backends.flax.loss import IGNORED, caption_loss  # noqa: E402
from captionkit.backends.flax.models import family_of  # noqa: E402
from captionkit.backends.flax.optimizer import flatten, trained_tensors  # noqa: E402
from captionkit.backends.torch.weights import named_as_saved  # noqa: E402
from captionkit.data.preprocess import Preprocessor  # noqa: E402
from captionkit.recipe import Decoding  # noqa: E402

FAMILY = family_of("git")
apply = jax.jit(FAMILY.apply, static_argnums=0, static_argnames=("dtype", "remat", "unroll"))
encode = jax.jit(FAMILY.encode, static_argnums=0)

TEXT = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40,
    "vocab_size": 40, "max_position_embeddings": 24, "bos_token_id": 2, "eos_token_id": 3,
    "pad_token_id": 0, "initializer_range": 0.3, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
VISION = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "image_size": 16, "patch_size": 8, "initializer_range": 0.3,
}  # fmt: skip

# odd head counts, patches that leave a rest, unequal widths, one layer, tied heads, other
# activations and epsilons
CONFIGURATIONS = {
    "plain": ({}, {}),
    "odd heads, unequal widths": (
        {"num_attention_heads": 7, "hidden_size": 35, "num_hidden_layers": 3},
        {"num_attention_heads": 5, "hidden_size": 15},
    ),
    "one layer, one head": (
        {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_act": "relu"},
        {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_act": "gelu"},
    ),
    "a rest beyond the last patch, other epsilons": (
        {"layer_norm_eps": 1e-2},
        {"image_size": 29, "patch_size": 6, "layer_norm_eps": 1e-3},
    ),
    "tied head": (
        {"tie_word_embeddings": True, "hidden_act": "gelu_new", "intermediate_size": 9},
        {"hidden_act": "silu", "intermediate_size": 11},
    ),
    "no padding token, many layers": (
        {"pad_token_id": None, "num_hidden_layers": 5, "num_attention_heads": 3},
        {"num_hidden_layers": 4, "image_size": 12, "patch_size": 4, "hidden_act": "gelu_new"},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _compiled_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def git_config(text=None, vision=None):
    return GitConfig(**{**TEXT, **(text or {})}, vision_config={**VISION, **(vision or {})})


def both(folder, config, seed=0, spread=0.1, positions=None):
    """(torch model, config, graphdef, parameters) of one file; biases and norms are random too.

    spread: what is added to every weight. positions: the same for text positions; far apart,
    captions do not repeat one word.
    """
    torch.manual_seed(seed)
    model = GitForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = positions if positions and "position_embeddings" in name else spread
            parameter.add_(torch.randn_like(parameter) * scale)
    model.save_pretrained(folder)
    config = FAMILY.config_of(folder)
    return model, config, FAMILY.abstract(config)[0], FAMILY.load_params(folder, config)


def inputs_for(config, batch=3, length=7, seed=0):
    draw = np.random.default_rng(seed)
    pixels = draw.normal(size=(batch, *config.image_size, 3)).astype(np.float32)
    ids = draw.integers(4, config.text.vocab_size, (batch, length))
    mask = np.arange(length)[None] < draw.integers(3, length + 1, (batch, 1))
    ids[:, 0] = 2
    return pixels, np.where(mask, ids, 0), mask.astype(int)


def torch_logits(model, pixels, ids, mask):
    output = model(
        pixel_values=torch.tensor(pixels).permute(0, 3, 1, 2), input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask),
    )  # fmt: skip
    return output.logits[:, -ids.shape[1] :]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits(name, tmp_path):
    model, config, graphdef, params = both(tmp_path, git_config(*CONFIGURATIONS[name]))
    pixels, ids, mask = inputs_for(config)
    with torch.no_grad():
        theirs = torch_logits(model, pixels, ids, mask).numpy()
    ours = np.asarray(apply(graphdef, params, pixels, ids, mask))
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 1  # nothing trivial is compared
    assert np.abs(ours - theirs)[mask == 1].max() < 1e-4


LONG = pytest.mark.long


@pytest.mark.parametrize("tied", [False, pytest.param(True, marks=LONG)])
def test_gradients(tmp_path, tied):
    smaller = {"initializer_range": 0.02}
    torch_config = git_config(
        {**smaller, "num_hidden_layers": 3, "tie_word_embeddings": tied}, smaller
    )
    model, config, graphdef, params = both(tmp_path, torch_config, spread=0.02)
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

    options = {"remat": True, "unroll": True} if tied else {}

    def loss(params):
        return caption_loss(apply(graphdef, params, pixels, ids, mask, **options), targets)

    ours = jax.jit(jax.grad(loss))(params)
    for (path, mine), yours in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        # zero in exact arithmetic (of key biases) is noise in theirs and in ours
        size = max(np.linalg.norm(yours), 1e-6 * total)
        error = np.linalg.norm(np.asarray(mine) - yours) / size
        assert error <= 1e-4, (jax.tree_util.keystr(path), error)


def test_first_weights_are_distributed_as_those_of_transformers(tmp_path):
    config = git_config(
        {"hidden_size": 48, "initializer_range": 0.05, "vocab_size": 300, "num_hidden_layers": 3},
        {"hidden_size": 48, "initializer_range": 0.2},
    )
    torch.manual_seed(0)
    GitForCausalLM(config).save_pretrained(tmp_path / "theirs")
    read = FAMILY.config_of(tmp_path / "theirs")
    params = FAMILY.init_params(read, 7)
    FAMILY.save_params(tmp_path / "ours", params, read)
    theirs, ours = (load_file(tmp_path / n / "model.safetensors") for n in ("theirs", "ours"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        slack = 6 * max(float(tensor.std()), 1e-9) / tensor.size**0.5  # six standard errors
        assert ours[name].mean() == pytest.approx(tensor.mean(), abs=slack), name
        assert ours[name].std() == pytest.approx(tensor.std(), abs=slack), name
    padding = "git.embeddings.word_embeddings.weight"
    assert not ours[padding][0].any()
    assert not theirs[padding][0].any()
    last = [f"git.encoder.layer.{i}.attention.self.query.weight" for i in range(3)]
    assert len({ours[name].tobytes() for name in last}) == 3
    again = FAMILY.init_params(read, 7)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(params)))


def test_decay_masks_and_frozen_tensors_are_those_of_the_trainer(tmp_path):
    model, config, _, params = both(tmp_path, git_config({"num_hidden_layers": 3}))
    decayed = {id(model.get_parameter(n)) for n in Trainer.get_decay_parameter_names(None, model)}
    saved = named_as_saved(model)
    shapes = {path: leaf.shape for path, leaf in flatten(params).items()}
    names = FAMILY.tensor_names(config)
    assert {name for name, _, _ in names} == saved.keys()
    trained = trained_tensors(names, shapes, (), FAMILY.untrained)
    assert trained.count == sum(p.numel() for p in model.parameters())
    for name, path, _ in names:
        assert trained.decays["/".join(path)] == (id(saved[name]) in decayed), name
    # of the text layers the first two are a stack, the last stands apart
    frozen = trained_tensors(names, shapes, ["git.encoder.layer.[12].*"], FAMILY.untrained)
    assert not any(path.startswith("last_layer/") for path in frozen.layers)
    assert frozen.layers["layers/query/kernel"].tolist() == [0]
    gone = [p for n, p in saved.items() if n.startswith("git.encoder.layer.") and n[18] != "0"]
    assert trained.count - frozen.count == sum(p.numel() for p in gone)


# ---- generation --------------------------------------------------------------------------------


class Talker(NamedTuple):
    model: Any
    config: Any
    graphdef: Any
    params: Any
    pixels: np.ndarray
    states: Any


@pytest.fixture(scope="module")
def talkers(tmp_path_factory):
    """Models of one configuration, which is compiled once; captions end at different lengths."""
    made = []
    for seed in range(3):
        folder = tmp_path_factory.mktemp("talker")
        found = both(folder, git_config({"num_hidden_layers": 3}), seed, positions=3.0)
        pixels = np.random.default_rng(9).normal(size=(4, 16, 16, 3)).astype(np.float32)
        made.append(Talker(*found, pixels, encode(*found[2:], pixels)))
    return made


def assert_same_captions(talker, **settings):
    """Token for token; a difference counts only where torch's own scores are told apart."""
    start, ends, pad = FAMILY.token_ids(talker.config)
    output = talker.model.generate(
        pixel_values=torch.tensor(talker.pixels).permute(0, 3, 1, 2),
        generation_config=GenerationConfig(
            **settings, do_sample=False, bos_token_id=start, eos_token_id=list(ends),
            pad_token_id=pad,
        ),
    )  # fmt: skip
    theirs = [until_end(row[1:], ends) for row in output.tolist()]
    found = generate(
        FAMILY, talker.graphdef, FAMILY.weights(talker.graphdef, talker.params), talker.states,
        Decoding(**settings),
        FAMILY.token_ids(talker.config),
    )  # fmt: skip
    ids, lengths = (np.asarray(x).reshape(-1, *x.shape[2:]) for x in found[:2])
    ours = [row[:length].tolist() for row, length in zip(ids, lengths)]
    per_image = settings.get("num_return_sequences", 1)
    for row, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        if mine != yours:
            image, penalty = talker.pixels[[row // per_image]], settings.get("length_penalty", 1.0)
            scores = [torch_score(talker.model, image, ids, penalty) for ids in (mine, yours)]
            assert abs(scores[0] - scores[1]) < 1e-4, (row, mine, yours, scores)
    return ours


def until_end(ids, ends):
    at = next((i for i, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: at + 1]


@torch.no_grad()
def torch_score(model, image, ids, penalty):
    inputs = np.array([[2, *ids[:-1]]])
    log_probs = torch_logits(model, image, inputs, np.ones_like(inputs))[0].log_softmax(-1)
    return float(log_probs[range(len(ids)), ids].sum()) / len(ids) ** penalty


def test_greedy_captions(talkers):
    ours = [ids for t in talkers for ids in assert_same_captions(t, max_new_tokens=20)]
    assert len({len(ids) for ids in ours}) > 2  # some end early
    assert len({tuple(ids) for ids in ours}) > 8


@pytest.mark.parametrize(
    ("num_beams", "length"),
    [pytest.param(2, 16, marks=LONG), (4, 9), pytest.param(8, 7, marks=LONG)],
)
def test_beam_captions(talkers, num_beams, length):
    for talker in talkers:
        for length_penalty, early_stopping in (
            (1.0, False),
            (0.0, True),
            (2.0, True),
            (-0.7, False),
        ):
            assert_same_captions(
                talker, num_beams=num_beams, max_new_tokens=length, length_penalty=length_penalty,
                early_stopping=early_stopping, num_return_sequences=2,
            )  # fmt: skip


# ---- training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pairs, tokenizer):
    """Three equal steps from equal weights on both backends, without dropout."""
    home = tmp_path_factory.mktemp("runs")
    text = {"vocab_size": len(tokenizer), "initializer_range": 0.1, "num_hidden_layers": 3}
    torch.manual_seed(0)
    model = GitForCausalLM(git_config(text, {"initializer_range": 0.1}))
    model.save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    Preprocessor.square(16).save(home / "model")
    return home / "model", [
        captionkit.finetune(
            model=str(home / "model"), dataset=pairs[:12], backend=backend, max_steps=3,
            output_dir=str(home / backend), batch_size=4, logging_steps=1, learning_rate=2e-3,
            weight_decay=0.1, max_grad_norm=0.5, precision="fp32", test_size=0, save_steps=2,
            freeze=["git.encoder.layer.[02].*", "*position_embedding*"], warmup_steps=1,
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
        frozen = "encoder.layer.0." in name or "encoder.layer.2." in name or "position_emb" in name
        assert (moved == 0) == frozen, name
        # the gradient of a key's bias is noise, which AdamW makes into steps of any sign
        if not name.endswith(("key.bias", "k_proj.bias")):
            assert np.abs(a[name] - b[name]).max() <= 0.02 * moved, name


def test_what_either_wrote_the_other_and_transformers_load(runs, pairs):
    images = [image for image, _ in pairs[:4]]
    for result in runs[1]:
        model, report = GitForCausalLM.from_pretrained(result.output_dir, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        captioners = [captionkit.load(result.output_dir, backend=b) for b in ("torch", "flax")]
        captions = [c.caption(images, num_beams=2, max_new_tokens=8) for c in captioners]
        assert [c.text for c in captions[0]] == [c.text for c in captions[1]]
        assert [c.score for c in captions[0]] == pytest.approx(
            [c.score for c in captions[1]], abs=1e-4
        )
        losses = [c.loss(images, ["red above blue."] * 4) for c in captioners]
        assert losses[0][1] == losses[1][1] == 20
        assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
        pixels = [captioners[1].preprocess(image) / 127.5 - 1 for image in images]
        ids = model.eval().generate(
            pixel_values=torch.tensor(np.stack(pixels), dtype=torch.float32).permute(0, 3, 1, 2),
            max_new_tokens=8, num_beams=2,
        )  # fmt: skip
        plain = captioners[0].tokenizer.batch_decode(ids, skip_special_tokens=True)
        assert plain == [c.text for c in captions[1]]
