"""Whole runs: what they write, and which weights they end with.

The tests of every backend; its own file has the fixtures `train`, which trains a tiny model as
`train(dataset, folder, **settings)`, `result` of four epochs of that, and `too_much`, a learning
rate that destroys it.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file

import captionkit
from captionkit.evaluation import read_predictions

SMALL = {
    "batch_size": 4, "learning_rate": 2e-3, "eval_batch_size": 8, "test_size": 0.25,
    "metrics": ["wer"], "max_new_tokens": 10, "logging_steps": 2, "precision": "fp32",
}  # fmt: skip


def without_speed(history):
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


def test_a_run_writes_a_hugging_face_folder(result):
    names = {path.name for path in result.output_dir.iterdir()}
    assert {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "preprocessor_config.json", "generation_config.json", "captionkit",
    } <= names  # fmt: skip
    assert not [n for n in names if n.endswith((".bin", ".pt", ".tmp")) or n.startswith(".")]
    inside = {path.name for path in (result.output_dir / "captionkit").iterdir()}
    assert {
        "recipe.yaml", "history.jsonl", "metrics.json", "predictions.jsonl", "report.html",
        "samples.png", "run.json", "tensorboard",
    } <= inside  # fmt: skip


def test_history_and_metrics_agree(result):
    # 12 of 16 images train: 3 steps an epoch, 12 in all
    assert [row["step"] for row in result.history if "loss" in row] == [2, 4, 6, 8, 10, 12]
    evaluated = {row["step"]: row for row in result.history if "eval_loss" in row}
    assert list(evaluated) == [3, 6, 9, 12]
    best = min(evaluated.values(), key=lambda row: row["eval_loss"])
    assert result.metrics == {"loss": best["eval_loss"], "wer": best["eval_wer"]}
    assert json.loads((result.output_dir / "captionkit/metrics.json").read_text()) == result.metrics


def test_it_captions_as_it_was_evaluated(train, pairs, tmp_path):
    settings = {"num_beams": 2, "length_penalty": -2.0, "prompt": "red"}
    result = train(pairs, tmp_path / "run", max_steps=2, **settings)
    scored = {p.image_id: p.prediction for p in read_predictions(result.output_dir / "captionkit")}
    again = captionkit.evaluate(str(result.output_dir), pairs, metrics=[])
    assert {p.image_id: p.prediction for p in again.predictions}.items() >= scored.items()
    assert all(text.startswith("red") for text in scored.values())


def test_the_best_weights_are_kept_and_early_stopping_stops(train, too_much, pairs, tmp_path):
    result = train(
        pairs, tmp_path / "run", epochs=20, learning_rate=too_much, schedule="constant",
        eval_steps=1, early_stopping_patience=3, save_total_limit=1, best_metric="loss",
    )  # fmt: skip
    evaluated = [row for row in result.history if "eval_loss" in row]
    best = min(evaluated, key=lambda row: row["eval_loss"])
    assert evaluated[-1]["step"] == best["step"] + 3 < 60
    assert result.metrics["loss"] == best["eval_loss"]
    checkpoints = {p.name for p in result.output_dir.glob("checkpoint-*")}
    assert f"checkpoint-{best['step']}" in checkpoints
    assert len(checkpoints) <= 2
    kept = load_file(result.output_dir / f"checkpoint-{best['step']}" / "model.safetensors")
    final = load_file(result.output_dir / "model.safetensors")
    assert kept
    assert all(np.array_equal(kept[name], final[name]) for name in kept)


def test_an_update_whose_only_image_is_bad_stops_or_is_left_out(train, pairs, tmp_path):
    bad = tmp_path / "bad.jpg"
    pairs[0][0].save(bad)
    bad.write_bytes(bad.read_bytes()[:200])
    mixed = [*pairs[:7], (str(bad), "never seen"), *pairs[7:]]
    with pytest.raises(captionkit.CaptionkitError, match=r"bad\.jpg.* on_bad_image='skip' goes on"):
        train(mixed, tmp_path / "a", epochs=1, test_size=0)
    result = train(mixed, tmp_path / "b", epochs=2, test_size=0, on_bad_image="skip", batch_size=1)
    assert list(result.skipped) == [str(bad)]
    assert "bad.jpg" in (result.output_dir / "captionkit/skipped.jsonl").read_text()
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert losses
    assert all(map(math.isfinite, losses))


def test_captions_longer_than_the_model_are_named_or_cut(train, pairs, tmp_path):
    long = [*pairs, (pairs[0][0], "red " * 40)]
    with pytest.raises(captionkit.CaptionkitError, match=r"42 tokens long.*max_caption_tokens=24"):
        train(long, tmp_path / "a", test_size=0)
    result = train(long, tmp_path / "b", test_size=0, max_caption_tokens=24, max_steps=2)
    assert result.history
