"""Whole runs of GIT on Flax: a resumed one is exact, one on real photos learns them by heart."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import captionkit

GIT = {
    "model_type": "git", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 40, "max_position_embeddings": 24, "initializer_range": 0.1,
    "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1,
    "vision_config": {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 40, "image_size": 16, "patch_size": 8, "attention_dropout": 0.1,
    },
}  # fmt: skip


@pytest.fixture
def _compiled_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.long
@pytest.mark.usefixtures("_compiled_quickly")
def test_a_resumed_run_is_the_whole_run_bit_for_bit(pairs, tmp_path):
    (tmp_path / "own.json").write_text(json.dumps(GIT))
    settings = {
        "model": str(tmp_path / "own.json"), "dataset": pairs, "backend": "flax", "max_steps": 4,
        "batch_size": 4, "learning_rate": 5e-3, "logging_steps": 1, "test_size": 0,
        "precision": "fp32", "eval_steps": 0, "save_steps": 2,
    }  # fmt: skip
    whole = captionkit.finetune(output_dir=str(tmp_path / "whole"), **settings)
    shutil.copytree(whole.output_dir, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoint-4")
    (tmp_path / "cut/model.safetensors").unlink()
    resumed = captionkit.finetune(output_dir=str(tmp_path / "cut"), resume=True, **settings)
    losses = [
        [row["loss"] for row in result.history if "loss" in row] for result in (whole, resumed)
    ]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 4
    a, b = (load_file(r.output_dir / "model.safetensors") for r in (whole, resumed))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    first = load_file(tmp_path / "cut/checkpoint-2/model.safetensors")
    assert not any(np.array_equal(first[name], b[name]) for name in a)


SMALL_GIT = {
    "model_type": "git",
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.08,
    "vision_config": {
        "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "image_size": 96, "patch_size": 16, "initializer_range": 0.08,
    },
}  # fmt: skip


# it knows the training photos by heart and nothing of others, and is told so
@pytest.mark.filterwarnings("ignore:The 85 captions fit their own images no better")
@pytest.mark.long
def test_a_small_git_memorises_the_training_photos(shared_data, tmp_path, capsys):
    model = tmp_path / "small-git"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(SMALL_GIT))
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(shared_data / "tokenizers/bert-base-uncased" / name, model / name)
    coco = {"dataset": "coco", "data_dir": str(shared_data / "coco-mini"), "captions": "first"}
    result = captionkit.finetune(
        model=str(model), backend="flax", output_dir=str(tmp_path / "memory"), epochs=60,
        batch_size=8, learning_rate=1e-3, warmup_steps=20, eval_steps=0, save_steps=0,
        precision="fp32", max_new_tokens=24, **coco,
    )  # fmt: skip
    train = captionkit.load_dataset(split="train", name=coco.pop("dataset"), **coco)
    captioner = captionkit.load(result.output_dir, backend="flax")
    evaluation = captionkit.evaluate(captioner, train, metrics=["wer"])
    assert evaluation.metrics["wer"] <= 0.05

    captions = captioner.caption([example.image for example in train])
    tokenizer = captioner.tokenizer
    spoken = [
        tokenizer.decode(tokenizer(example.captions[0])["input_ids"], skip_special_tokens=True)
        for example in train
    ]
    assert len(spoken) == 37
    right = sum(caption.text == text for caption, text in zip(captions, spoken))
    assert right >= 33
    with capsys.disabled():
        print(f"\nmemorised: WER {evaluation.metrics['wer']:.4f}, {right} of 37 word for word")
