"""Whole runs of a tiny model: see training_policy.py; and that they are exact."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from stopping import StopAt
from training_policy import (  # noqa: F401 (the tests)
    SMALL,
    test_a_run_writes_a_hugging_face_folder,
    test_an_update_whose_only_image_is_bad_stops_or_is_left_out,
    test_captions_longer_than_the_model_are_named_or_cut,
    test_history_and_metrics_agree,
    test_it_captions_as_it_was_evaluated,
    test_the_best_weights_are_kept_and_early_stopping_stops,
    without_speed,
)

import captionkit
from captionkit.backends.flax.state import read_state
from captionkit.backends.flax.step import TrainState
from captionkit.errors import (
    CheckpointError,
    ConfigError,
    OutputError,
    TrainingInterrupted,
)


def run(folder, pairs, output_dir, **settings):
    settings = {**SMALL, "backend": "flax", **settings}
    return captionkit.finetune(
        model=str(folder), dataset=pairs, output_dir=str(output_dir), **settings
    )


@pytest.fixture(scope="module")
def train(ved_folder):
    return functools.partial(run, ved_folder)


@pytest.fixture(scope="module")
def result(train, pairs, tmp_path_factory):
    return train(pairs, tmp_path_factory.mktemp("runs") / "whole", epochs=4)


@pytest.fixture
def too_much():
    return 0.3


def test_the_folder_says_how_captions_are_generated_and_what_was_trained(result, ved_folder):
    generation = json.loads((result.output_dir / "generation_config.json").read_text())
    assert generation == {
        "decoder_start_token_id": 2, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
        "max_new_tokens": 10, "num_beams": 1,
    }  # fmt: skip
    before = load_file(ved_folder / "model.safetensors")
    after = load_file(result.output_dir / "model.safetensors")
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    info = json.loads((result.output_dir / "captionkit/run.json").read_text())
    assert info["parameters"] == sum(tensor.size for tensor in before.values())
    pooler = sum(t.size for name, t in before.items() if name.startswith("encoder.pooler."))
    assert info["trainable"] == info["parameters"] - pooler


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulation_steps": 4},
        {"gradient_checkpointing": True},
        {"workers": 1, "image_cache_gb": 0.01},
        {"devices": 1},
    ],
)
def test_how_it_is_computed_does_not_change_the_result(
    result, ved_folder, pairs, tmp_path, settings, monkeypatch
):
    monkeypatch.setattr("captionkit.data.decoded_cache.LEFT_FREE", 0)
    other = run(ved_folder, pairs, tmp_path / "run", epochs=4, **settings)
    for a, b in zip(without_speed(result.history), without_speed(other.history), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.fixture(scope="module")
def dropout_folder(ved_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropout") / "m"
    shutil.copytree(ved_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["encoder"]["hidden_dropout_prob"] = config["decoder"]["resid_pdrop"] = 0.2
    (folder / "config.json").write_text(json.dumps(config))
    return folder


DROPOUT = {"epochs": 3, "logging_steps": 4, "save_total_limit": 2}


@pytest.fixture(scope="module")
def whole(dropout_folder, pairs, tmp_path_factory):
    return run(dropout_folder, pairs, tmp_path_factory.mktemp("runs") / "dropout", **DROPOUT)


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_an_interrupted_run_goes_on_exactly(whole, dropout_folder, pairs, tmp_path, stop):
    """The history and the weights of the whole run, bit for bit; dropout and drawn captions too."""
    output_dir = tmp_path / "stopped"
    with StopAt(stop), pytest.raises(TrainingInterrupted, match="resume=True") as e:
        run(dropout_folder, pairs, output_dir, **DROPOUT)
    assert f"after step {stop}" in str(e.value)
    assert (output_dir / f"checkpoint-{stop}").is_dir()
    assert not (output_dir / "model.safetensors").exists()
    resumed = run(dropout_folder, pairs, output_dir, resume=True, **DROPOUT)
    assert without_speed(resumed.history) == without_speed(whole.history)
    assert resumed.metrics == whole.metrics
    a = load_file(whole.output_dir / "model.safetensors")
    b = load_file(resumed.output_dir / "model.safetensors")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_dropout_has_an_effect(whole, ved_folder, pairs, tmp_path):
    plain = run(ved_folder, pairs, tmp_path / "plain", **DROPOUT)
    losses = [[row["loss"] for row in r.history if "loss" in row] for r in (plain, whole)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_a_damaged_checkpoint_is_passed_over(whole, dropout_folder, pairs, tmp_path):
    with StopAt(7), pytest.raises(TrainingInterrupted):
        run(dropout_folder, pairs, tmp_path / "b", **DROPOUT)
    (data,) = (tmp_path / "b/checkpoint-7/state/state/d").iterdir()
    data.write_bytes(b"cut off")
    with pytest.warns(UserWarning, match=r"checkpoint-7: state/state/d/\w+ is damaged"):
        resumed = run(dropout_folder, pairs, tmp_path / "b", resume=True, **DROPOUT)
    assert without_speed(resumed.history) == without_speed(whole.history)


def test_a_finished_run_can_be_resumed_without_a_step(whole, dropout_folder, pairs, tmp_path):
    shutil.copytree(whole.output_dir, tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    again = run(dropout_folder, pairs, tmp_path / "run", resume=True, **DROPOUT)
    assert without_speed(again.history) == without_speed(whole.history)
    a = load_file(whole.output_dir / "model.safetensors")
    b = load_file(again.output_dir / "model.safetensors")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_state_that_does_not_fit_is_explained(whole, tmp_path):
    shutil.copytree(whole.output_dir / "checkpoint-9", tmp_path / "checkpoint-9")
    other = TrainState({}, {"mu": np.zeros(3)}, *[np.zeros(()) for _ in range(3)])
    with pytest.raises(CheckpointError, match=r"does not fit this run: .* Were other tensors froz"):
        read_state(tmp_path / "checkpoint-9", other)
    shutil.rmtree(tmp_path / "checkpoint-9/state")
    with pytest.raises(CheckpointError, match="no training state of the Flax backend"):
        read_state(tmp_path / "checkpoint-9", other)


def test_frozen_tensors_do_not_move_nor_do_frozen_layers_of_a_stack(ved_folder, pairs, tmp_path):
    patterns = ["encoder.embeddings.*", "decoder.transformer.h.1.*", "encoder.encoder.layer.0.*"]
    result = run(ved_folder, pairs, tmp_path / "run", max_steps=3, freeze=patterns,
                 weight_decay=0.1)  # fmt: skip
    before = load_file(ved_folder / "model.safetensors")
    after = load_file(result.output_dir / "model.safetensors")
    frozen = [
        name for name in before if name.startswith(tuple(p.removesuffix("*") for p in patterns))
    ]
    for name in before:
        still = name in frozen or name.startswith("encoder.pooler.")
        # attention does not depend on what is added to every key
        if not name.endswith("key.bias"):
            assert np.array_equal(before[name], after[name]) == still, name
    info = json.loads((result.output_dir / "captionkit/run.json").read_text())
    pooler = [name for name in before if name.startswith("encoder.pooler.")]
    assert info["parameters"] - info["trainable"] == sum(
        before[name].size for name in [*frozen, *pooler]
    )


def test_a_run_from_a_config_brings_its_tokenizer_and_needs_no_validation(make, pairs, tmp_path):
    """That such a run learns is in the contract."""
    (tmp_path / "own.json").write_text(json.dumps(make.config({}, {"vocab_size": 32})))
    result = run(tmp_path / "own.json", pairs, tmp_path / "run", max_steps=2, test_size=0)
    assert result.metrics == {}
    assert result.report.is_file()
    config = json.loads((result.output_dir / "config.json").read_text())
    assert config["decoder"]["vocab_size"] == len(result.captioner.tokenizer) != 32


def test_a_run_whose_best_checkpoint_is_gone_ends_with_the_last_weights(
    whole, dropout_folder, pairs, tmp_path
):
    settings = {**DROPOUT, "best_metric": "wer"}
    first = run(dropout_folder, pairs, tmp_path / "run", **settings)
    evaluated = {row["step"]: row["eval_wer"] for row in first.history if "eval_wer" in row}
    best = min(evaluated, key=lambda step: (evaluated[step], step))
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        if checkpoint.name not in ("checkpoint-9",):
            shutil.rmtree(checkpoint)
    lost = pytest.warns(UserWarning, match=f"checkpoint-{best}, is lost: it is missing")
    with lost if best != 9 else contextlib.nullcontext():
        again = run(dropout_folder, pairs, tmp_path / "run", resume=True, **settings)
    assert again.metrics["wer"] == (evaluated[9] if best != 9 else first.metrics["wer"])
    a = load_file(tmp_path / "run/checkpoint-9/model.safetensors")
    b = load_file(again.output_dir / "model.safetensors")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_no_readable_image_at_all_is_said(ved_folder, tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(b"no image")
    bad = [(str(tmp_path / f"{i}.jpg"), "unseen words here") for i in range(6)]
    with pytest.raises(captionkit.CaptionkitError, match="None of the training images of"):
        run(ved_folder, bad, tmp_path / "run", test_size=0, on_bad_image="skip")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "fp16"}, "precision='fp16' needs a GPU"),
        ({"devices": 64}, r"devices=64 was asked for, but JAX sees \d+ \(cpu\)"),
        ({"devices": 0}, "devices=0 is not possible"),
        ({"parallel": "magic"}, "parallel='magic' is not possible"),
        ({"devises": 1}, "did you mean 'devices'"),
        ({"freeze": ["encoder.nothing.*"]}, "matches no tensor"),
        ({"freeze": ["*"]}, "nothing to train"),
        ({"best_metric": "cider"}, "best_metric='cider'"),
    ],
)
def test_impossible_settings_stop_before_training(ved_folder, pairs, tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        run(ved_folder, pairs, tmp_path / "run", **settings)


def test_a_checkpoint_that_cannot_be_written_stops_the_run(
    ved_folder, pairs, tmp_path, monkeypatch
):
    from captionkit import checkpoints

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_manifest", full)
    with pytest.raises(OutputError, match=r"checkpoint-3 could not be written .*No space"):
        run(ved_folder, pairs, tmp_path / "run", epochs=1)


def test_a_run_with_adafactor_is_resumed_exactly(ved_folder, pairs, tmp_path):
    settings = {"optimizer": "adafactor", "max_steps": 4, "save_steps": 2, "logging_steps": 1,
                "test_size": 0, "weight_decay": 0.1, "freeze": ["encoder"]}  # fmt: skip
    whole = run(ved_folder, pairs, tmp_path / "whole", **settings)
    shutil.copytree(whole.output_dir, tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoint-4")
    again = run(ved_folder, pairs, tmp_path / "again", resume=True, **settings)
    first, second = (
        load_file(result.output_dir / "model.safetensors") for result in (whole, again)
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert without_speed(whole.history) == without_speed(again.history)
    start = load_file(ved_folder / "model.safetensors")
    encoder = {name for name in start if name.startswith("encoder.")}
    assert {name for name in start if np.array_equal(start[name], first[name])} == encoder
    info = json.loads((whole.output_dir / "captionkit/run.json").read_text())
    frozen = sum(start[name].size for name in encoder)
    assert info["parameters"] - info["trainable"] == frozen
