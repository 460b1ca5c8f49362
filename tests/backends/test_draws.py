"""Both backends see the same images with the same captions, update by update."""

from __future__ import annotations

import contextlib
import io
import itertools
import tarfile
from contextlib import closing

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

import numpy as np
import torch
from PIL import Image
from transformers import (
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

import captionkit
from captionkit import api, tracking
from captionkit.backends.flax import batches as flax_batches
from captionkit.backends.torch import batches as torch_batches
from captionkit.data import load_splits
from captionkit.data.captions import build_word_tokenizer
from captionkit.data.loader import training_rows
from captionkit.data.order import caption_index, visit_count, visits
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import TrainingInterrupted
from captionkit.recipe import Recipe

SIZE = 8
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
IMAGES, CAPTIONS = 23, 3


def texts(i: int) -> list[str]:
    return [f"{NUMBERS[i // 10]} {NUMBERS[i % 10]} {NUMBERS[c]}" for c in range(CAPTIONS)]


def picture(i: int) -> Image.Image:
    return Image.new("RGB", (12, 9), (i * 10, 0, 255 - i * 10))


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(NUMBERS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The same pictures in three tars."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for i in range(shard, IMAGES, 3):
                png = io.BytesIO()
                picture(i).save(png, "PNG")
                for ending, content in (
                    ("png", png.getvalue()),
                    ("txt", "\n".join(texts(i)).encode()),
                ):
                    info = tarfile.TarInfo(f"{i:03d}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return folder


def both(dataset, recipe, tokenizer):
    """By backend and update: the sorted (picture, caption) pairs that it is made of."""
    training = recipe.training
    preprocess = Preprocessor.square(SIZE)
    rows = training.batch_size // training.accumulation_steps

    order, read = training_rows(dataset, recipe, tokenizer, None, preprocess, training.batch_size)
    flax = flax_batches.TrainingBatches(order, read, recipe, (SIZE, SIZE), 2, 0)
    with closing(flax.updates()) as updates:
        theirs = [_flax_pairs(update.arrays) for update in updates]

    order, read = training_rows(dataset, recipe, tokenizer, None, preprocess, rows)
    batches = torch_batches.TrainingBatches(order, read, recipe, 0, (SIZE, SIZE))
    ours = []
    with closing(batches):
        for batches.epoch in range(len(theirs) // flax.steps_per_epoch):
            passes = iter([batches[number] for number in range(len(batches))])
            while update := list(itertools.islice(passes, training.accumulation_steps)):
                ours.append([pair for batch in update for pair in _torch_pairs(batch)])
    return [sorted(update) for update in ours], [sorted(update) for update in theirs]


def _from_the_fifth(dataset, recipe, tokenizer):
    """As `both`, of a run that goes on after five updates of two passes of three images."""
    preprocess = Preprocessor.square(SIZE)
    order, read = training_rows(dataset, recipe, tokenizer, None, preprocess, 3)
    with closing(torch_batches.TrainingBatches(order, read, recipe, 0, (SIZE, SIZE))) as batches:
        passes = [list(_torch_pairs(batches[number])) for number in range(10, len(batches))]
    order, read = training_rows(dataset, recipe, tokenizer, None, preprocess, 6)
    flax = flax_batches.TrainingBatches(order, read, recipe, (SIZE, SIZE), 2, 0)
    with closing(flax.updates(5)) as updates:
        theirs = [sorted(_flax_pairs(update.arrays)) for update in updates]
    return [sorted(a + b) for a, b in zip(passes[::2], passes[1::2])], theirs


def _torch_pairs(batch):
    pixels = batch["pixel_values"].permute(0, 2, 3, 1).numpy()
    for row, ids, mask in zip(pixels, batch["labels"].numpy(), batch["attention_mask"].numpy()):
        yield int(row[0, 0, 0]) // 10, tuple(ids[mask.astype(bool)].tolist())


def _flax_pairs(arrays):
    pixels = arrays["pixels"].reshape(-1, SIZE, SIZE, 3)
    targets = arrays["targets"].reshape(len(pixels), -1)
    for row, ids in zip(pixels, targets):
        if (ids >= 0).any():
            yield int(row[0, 0, 0]) // 10, tuple(ids[ids >= 0].tolist())


def expected(dataset, recipe, tokenizer, epochs):
    """What core draws, in updates."""
    size = recipe.training.batch_size
    for epoch in range(epochs):
        drawn = visits(dataset, recipe.data.captions, recipe.training.seed, epoch).tolist()
        pairs = []
        for image, caption in drawn:
            text = dataset[image].captions[caption]
            # of "two three one", twenty-three is the picture
            words = [NUMBERS.index(word) for word in text.split()]
            pairs.append((words[0] * 10 + words[1], tuple(tokenizer(text)["input_ids"][1:])))
        yield from (sorted(pairs[i : i + size]) for i in range(0, len(pairs), size))


@pytest.mark.parametrize("captions", ["random", "all", "first"])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_dataset(shards, tokenizer, captions, accumulation_steps):
    recipe = Recipe().replace(
        data_dir=str(shards), captions=captions, epochs=3, batch_size=6, seed=11,
        accumulation_steps=accumulation_steps, test_size=0.0,
    )  # fmt: skip
    dataset, _ = load_splits(recipe.data, seed=11)
    ours, theirs = both(dataset, recipe, tokenizer)
    assert ours == theirs == list(expected(dataset, recipe, tokenizer, 3))
    seen = [pair for update in ours for pair in update]
    assert len(seen) == 3 * visit_count(dataset, captions)
    if captions != "first":
        assert len(set(seen)) > IMAGES


@pytest.mark.parametrize("captions", ["random", "all"])
def test_a_mixture(shards, tokenizer, captions):
    mix = [
        {"train_file": str(shards / "0.tar"), "weight": 3},
        {"train_file": str(shards / "1.tar")},
    ]
    recipe = Recipe().replace(
        mix=mix, captions=captions, mix_epoch_images=20, epochs=2, batch_size=8, test_size=0.0
    )
    dataset, _ = load_splits(recipe.data, seed=42)
    ours, theirs = both(dataset, recipe, tokenizer)
    assert ours == theirs == list(expected(dataset, recipe, tokenizer, 2))
    pictures = [picture for update in ours for picture, _ in update]
    assert [sum(p % 3 == s for p in pictures) for s in range(3)] == [30, 10, 0]


@pytest.mark.parametrize("captions", ["random", "all", "first"])
def test_a_stream(shards, tokenizer, captions):
    recipe = Recipe().replace(
        data_dir=str(shards), captions=captions, max_steps=9, batch_size=6, accumulation_steps=2,
        streaming=True, shuffle_buffer=5, test_size=0.0,
    )  # fmt: skip
    dataset, _ = load_splits(recipe.data, seed=42)
    ours, theirs = both(dataset, recipe, tokenizer)
    assert ours == theirs
    assert [len(update) for update in ours] == [6] * 9
    assert _from_the_fifth(dataset, recipe, tokenizer) == (ours[5:], ours[5:])
    seen = [pair for update in ours for pair in update]
    first = seen[:IMAGES] if captions != "all" else seen[: IMAGES * CAPTIONS]
    if captions == "all":
        assert len(set(seen)) == len(seen)
    else:
        # an epoch ends within an update, which is sorted here
        assert len({picture for picture, _ in seen[:18]}) == 18
        assert len({picture for picture, _ in seen}) == IMAGES
    if captions == "random":
        ids = {i: f"{i % 3}/{i:03d}" for i in range(IMAGES)}
        for number, ending in first[:18]:
            chosen = caption_index(42, 0, ids[number], CAPTIONS)
            assert ending == tuple(tokenizer(texts(number)[chosen])["input_ids"][1:])


# ---- whole runs over a stream ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    encoder = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=SIZE, patch_size=4, initializer_range=0.1,
    )  # fmt: skip
    decoder = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=12, vocab_size=len(tokenizer),
        bos_token_id=2, eos_token_id=3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        initializer_range=0.2,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 2, 3, 0
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    VisionEncoderDecoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(SIZE).save(folder)
    return folder


SETTINGS = {
    "streaming": True, "shuffle_buffer": 6, "max_steps": 8, "batch_size": 6, "max_eval_samples": 4,
    "learning_rate": 1e-2, "metrics": ("wer",), "logging_steps": 1, "precision": "fp32",
    "max_new_tokens": 6, "eval_steps": 4, "workers": 2,
}  # fmt: skip


def test_runs_over_a_stream_and_going_on_with_one(shards, model, tmp_path, monkeypatch):
    settings = {"model": str(model), "data_dir": str(shards), **SETTINGS}
    runs = {
        backend: captionkit.finetune(
            output_dir=str(tmp_path / backend), backend=backend, **settings
        )
        for backend in ("torch", "flax")
    }  # fmt: skip
    ours, theirs = [run.history for run in runs.values()]
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    losses = [[row["loss"] for row in history if "loss" in row] for history in (ours, theirs)]
    assert len(losses[0]) == 8
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)
    assert "streaming: true" in (tmp_path / "torch/captionkit/recipe.yaml").read_text()

    # stopped after five updates, and taken up again
    folder = str(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        _stop_after(patch, 5)
        with pytest.raises(TrainingInterrupted):
            captionkit.finetune(output_dir=folder, backend="torch", **settings)
    resumed = captionkit.finetune(output_dir=folder, resume=True)
    assert [row.get("loss") for row in resumed.history] == [row.get("loss") for row in ours]


def _stop_after(patch, steps):
    done = []
    real = tracking.Tracking.__call__

    def counted(self, event):
        done.extend([1] * (event.kind == "step"))
        return real(self, event)

    patch.setattr(tracking.Tracking, "__call__", counted)

    @contextlib.contextmanager
    def stop():
        yield lambda: len(done) >= steps

    patch.setattr(api, "stop_requested_by_signal", stop)
