"""The two backends side by side: equal recipes and weights give equal runs."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import (
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

import captionkit
from captionkit.backends.flax.optimizer import decay_applies
from captionkit.backends.torch.train import freeze
from captionkit.backends.torch.weights import load_model, named_as_saved
from captionkit.data.captions import build_word_tokenizer
from captionkit.data.preprocess import Preprocessor
from captionkit.recipe import TrainingConfig
from captionkit.schedule import learning_rate

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40),
    "white": (250, 250, 250), "black": (5, 5, 5),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pairs():
    """Fifteen pictures, half one colour over another, with captions of unequal lengths."""
    rows = []
    for i in range(15):
        top, bottom = list(COLOURS)[i % 6], list(COLOURS)[(i * 2 + 1 + i // 6) % 6]
        pixels = np.zeros((40, 48, 3), np.uint8)
        pixels[:20], pixels[20:] = COLOURS[top], COLOURS[bottom]
        texts = [f"{top} above {bottom}", f"some {bottom} that is below some {top}, a picture"]
        rows.append((Image.fromarray(pixels), texts))
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pairs):
    """ViT + GPT-2 with random weights and no dropout, as transformers writes it."""
    tokenizer = build_word_tokenizer(text for _, texts in pairs for text in texts)
    encoder = ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, initializer_range=0.1,
    )  # fmt: skip
    decoder = GPT2Config(
        n_embd=24, n_layer=2, n_head=2, n_positions=24, vocab_size=len(tokenizer),
        bos_token_id=2, eos_token_id=3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        initializer_range=0.2,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 2, 3, 0
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("both")
    VisionEncoderDecoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(32).save(folder)
    return folder


SETTINGS = {
    "epochs": 2, "batch_size": 6, "accumulation_steps": 2, "eval_batch_size": 4, "test_size": 0.1,
    "learning_rate": 3e-3, "warmup_steps": 2, "weight_decay": 0.1, "label_smoothing": 0.1,
    "max_grad_norm": 0.5, "max_new_tokens": 12, "logging_steps": 1, "precision": "fp32",
    "metrics": ("wer",), "eval_steps": 3,
}  # fmt: skip


@pytest.fixture(scope="module", params=["linear", "cosine", "constant"])
def runs(request, folder, pairs, tmp_path_factory):
    """The same recipe on both; of 13 training images the last update and pass are not full."""
    home = tmp_path_factory.mktemp("runs")
    settings = {**SETTINGS, "schedule": request.param, "captions": "random"}
    if request.param == "cosine":
        settings |= {"captions": "all", "max_grad_norm": 0.0, "num_beams": 3}
    if request.param == "constant":
        settings |= {"freeze": ["encoder.encoder.layer.1.*", "*.wpe.*"], "label_smoothing": 0.0}
    return [
        captionkit.finetune(
            model=str(folder), dataset=pairs, backend=backend, output_dir=str(home / backend),
            **settings,
        )
        for backend in ("torch", "flax")
    ]  # fmt: skip


def test_equal_recipes_give_equal_histories(runs):
    ours, theirs = [result.history for result in runs]
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert len(ours) >= 6
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys()
        assert a["learning_rate"] == b["learning_rate"]
        assert a["epoch"] == b["epoch"]
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
        for name in a.keys() - {"images_per_second"}:
            assert a[name] == pytest.approx(b[name], abs=2e-3), name


def test_equal_recipes_give_equal_weights(runs, folder):
    before = load_file(folder / "model.safetensors")
    ours, theirs = [load_file(result.output_dir / "model.safetensors") for result in runs]
    assert ours.keys() == theirs.keys() == before.keys()
    for name in before:
        moved = np.abs(ours[name] - before[name]).max()
        # the gradient of a key's bias is noise, which AdamW makes into steps of any sign
        if not name.endswith(("key.bias", "c_attn.bias")):
            assert np.abs(ours[name] - theirs[name]).max() <= 0.02 * moved, name
        else:
            assert (moved == 0) == (np.abs(theirs[name] - before[name]).max() == 0), name


def test_equal_captions_and_files(runs):
    for name in ("predictions.jsonl", "before.json"):
        texts = [(result.output_dir / "captionkit" / name).read_text() for result in runs]
        if name == "before.json":
            assert texts[0] == texts[1]
            continue
        rows = [[json.loads(line) for line in text.splitlines()] for text in texts]
        assert [r["prediction"] for r in rows[0]] == [r["prediction"] for r in rows[1]]
    files = [{path.name for path in result.output_dir.iterdir()} for result in runs]
    assert files[0] == files[1]
    trainable = [
        json.loads((result.output_dir / "captionkit/run.json").read_text())["trainable"]
        for result in runs
    ]
    assert trainable[0] == trainable[1]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (3, 20), (10, 10), (12, 10), (0, 1)])
def test_learning_rates_are_those_of_the_trainer(schedule, warmup, total):
    from transformers import get_scheduler

    name = "constant_with_warmup" if schedule == "constant" else schedule
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = get_scheduler(name, optimizer, warmup, total)
    training = TrainingConfig(learning_rate=3e-4, schedule=schedule, warmup_steps=warmup)
    for step in range(total):
        assert learning_rate(training, step, total) == pytest.approx(
            scheduler.get_last_lr()[0], rel=1e-12, abs=0
        )
        optimizer.step()
        scheduler.step()


def test_decay_masks_are_equal(folder):
    from transformers import Trainer

    model = load_model(folder)
    freeze(model, ())
    in_memory = Trainer.get_decay_parameter_names(None, model)
    decayed = {id(model.get_parameter(name)) for name in in_memory}
    saved = named_as_saved(model)
    assert saved.keys() == load_file(folder / "model.safetensors").keys()
    for name, tensor in saved.items():
        assert decay_applies(name) == (id(tensor) in decayed), name
    assert 0 < sum(map(decay_applies, saved)) < len(saved)


@pytest.mark.parametrize("runs", ["linear"], indirect=True)
def test_what_one_backend_trained_the_other_continues(runs, pairs, tmp_path):
    """From the weights of either, both go on alike; and both say the same of the images."""
    images = [image for image, _ in pairs[:4]]
    for result in runs:
        captioners = [
            captionkit.load(result.output_dir, backend=name) for name in ("torch", "flax")
        ]
        captions = [c.caption(images, num_beams=2, max_new_tokens=12) for c in captioners]
        assert [c.text for c in captions[0]] == [c.text for c in captions[1]]
        assert [c.score for c in captions[0]] == pytest.approx(
            [c.score for c in captions[1]], abs=1e-4
        )
    losses = [
        captionkit.finetune(
            model=str(result.output_dir), dataset=pairs, backend=backend, test_size=0,
            output_dir=str(tmp_path / f"{backend}-{n}"), max_steps=1, batch_size=15,
            captions="first", logging_steps=1, precision="fp32",
        ).history[0]["loss"]
        for n, result in enumerate(runs)
        for backend in ("torch", "flax")
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[2] == pytest.approx(losses[3], abs=1e-4)
