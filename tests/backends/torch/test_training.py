"""Whole runs of a tiny GIT: see training_policy.py; and that they are exact."""

from __future__ import annotations

import functools
import json
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file
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
from transformers import AutoModelForCausalLM

import captionkit
from captionkit.backends.torch.batches import pad_captions
from captionkit.backends.torch.captioner import normalised
from captionkit.errors import ConfigError, OutputError, TrainingInterrupted


def run(folder, pairs, output_dir, **settings):
    settings = {**SMALL, "backend": "torch", "device": "cpu", **settings}
    return captionkit.finetune(
        model=str(folder), dataset=pairs, output_dir=str(output_dir), **settings
    )


@pytest.fixture(scope="module")
def train(git_folder):
    return functools.partial(run, git_folder)


@pytest.fixture(scope="module")
def result(train, pairs, tmp_path_factory):
    return train(pairs, tmp_path_factory.mktemp("runs") / "whole", epochs=4)


@pytest.fixture
def too_much():
    return 0.5


def test_training_equals_a_plain_loop(git_folder, pairs, tmp_path):
    """The same steps by hand: AdamW, linear decay, clipping, mean loss over the update's tokens."""
    settings = {"epochs": 3, "test_size": 0, "weight_decay": 0.1, "warmup_steps": 2,
                "max_grad_norm": 0.5, "logging_steps": 1, "captions": "first",
                "label_smoothing": 0.1, "accumulation_steps": 2, "batch_size": 8}  # fmt: skip
    result = run(git_folder, pairs, tmp_path / "run", **settings)

    from captionkit.backends.torch.loss import caption_loss
    from captionkit.data.order import permutation

    model = AutoModelForCausalLM.from_pretrained(git_folder).train()
    captioner = captionkit.load(git_folder, device="cpu")
    pixels = normalised(captioner.encode([i for i, _ in pairs]).pixels, captioner.preprocess)
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and "bias" not in n]
    plain = [p for n, p in model.named_parameters() if not (p.ndim > 1 and "bias" not in n)]
    # the class embedding is a vector, but neither a bias nor a norm
    name = "git.image_encoder.vision_model.embeddings.class_embedding"
    class_embedding = dict(model.named_parameters())[name]
    plain = [p for p in plain if p is not class_embedding]
    optimizer = torch.optim.AdamW(
        [
            {"params": [*decayed, class_embedding], "weight_decay": 0.1},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=2e-3,
    )
    losses, rates = [], []
    for epoch in range(3):
        order = permutation(16, 42, epoch)
        for half in order.reshape(2, 8):
            step = len(losses)
            rate = 2e-3 * (step / 2 if step < 2 else (6 - step) / 4)
            for group in optimizer.param_groups:
                group["lr"] = rate
            ids = [captioner.tokenizer(pairs[i][1][0])["input_ids"] for i in half]
            batch = pad_captions(ids, 0)
            logits = model(pixel_values=pixels[torch.tensor(half)], input_ids=batch["input_ids"],
                           attention_mask=batch["attention_mask"]).logits[:, 17:]  # fmt: skip
            tokens = (batch["labels"] != -100).sum()
            loss = caption_loss(logits, batch["labels"], 0.1) / tokens
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
            rates.append(rate)
    rows = [row for row in result.history if "loss" in row]
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-4)
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)


def test_accumulation_does_not_change_the_result(git_folder, pairs, tmp_path):
    whole = run(git_folder, pairs, tmp_path / "a", epochs=2, batch_size=8)
    parts = run(git_folder, pairs, tmp_path / "b", epochs=2, batch_size=8, accumulation_steps=4)
    for a, b in zip(without_speed(whole.history), without_speed(parts.history), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def test_gradient_checkpointing_changes_nothing_but_memory(git_folder, pairs, tmp_path):
    plain = run(git_folder, pairs, tmp_path / "a", max_steps=3)
    again = run(git_folder, pairs, tmp_path / "b", max_steps=3, gradient_checkpointing=True)
    assert plain.metrics == pytest.approx(again.metrics, rel=1e-5)


def test_neither_workers_nor_the_cache_change_a_run(git_folder, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("captionkit.data.decoded_cache.LEFT_FREE", 0)
    settings = {"max_steps": 7, "captions": "all", "test_size": 0, "batch_size": 8}
    one = run(git_folder, pairs, tmp_path / "a", workers=1, **settings)
    before = threading.active_count()
    more = run(git_folder, pairs, tmp_path / "b", workers=3, image_cache_gb=0.01, **settings)
    assert without_speed(one.history) == without_speed(more.history)
    assert threading.active_count() == before


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_an_interrupted_run_goes_on_exactly(git_folder, pairs, tmp_path, stop, capsys):
    """The history and the weights of the whole run, bit for bit; dropout and drawn captions too."""
    folder = tmp_path / "dropout"
    shutil.copytree(git_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["hidden_dropout_prob"] = 0.2
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"epochs": 3, "logging_steps": 4, "save_total_limit": 2}
    whole = run(folder, pairs, tmp_path / "whole", **settings)
    output_dir = tmp_path / "stopped"
    with StopAt(stop), pytest.raises(TrainingInterrupted, match=r"resume=True") as e:
        run(folder, pairs, output_dir, **settings)
    assert f"after step {stop}" in str(e.value)
    assert str(output_dir / "captionkit" / "recipe.yaml") in str(e.value)
    assert (output_dir / f"checkpoint-{stop}").is_dir()
    assert not (output_dir / "model.safetensors").exists()
    resumed = run(folder, pairs, output_dir, resume=True, **settings)
    assert without_speed(resumed.history) == without_speed(whole.history)
    assert resumed.metrics == whole.metrics
    a = load_file(whole.output_dir / "model.safetensors")
    b = load_file(resumed.output_dir / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_damaged_checkpoint_is_passed_over(git_folder, pairs, tmp_path):
    whole = run(git_folder, pairs, tmp_path / "whole", epochs=3)
    settings = {"epochs": 3}
    with StopAt(7), pytest.raises(TrainingInterrupted):
        run(git_folder, pairs, tmp_path / "b", **settings)
    (tmp_path / "b/checkpoint-7/optimizer.pt").write_bytes(b"cut off")
    with pytest.warns(UserWarning, match=r"checkpoint-7: optimizer.pt is damaged"):
        resumed = run(git_folder, pairs, tmp_path / "b", resume=True, **settings)
    assert without_speed(resumed.history) == without_speed(whole.history)


def test_a_run_from_a_config_learns_and_brings_its_tokenizer(git_config, pairs, tmp_path):
    git_config.save_pretrained(tmp_path / "config-only")
    result = run(
        tmp_path / "config-only" / "config.json", pairs, tmp_path / "run", epochs=100, test_size=0,
        learning_rate=5e-3, captions="first", batch_size=16, save_steps=0, logging_steps=50,
    )  # fmt: skip
    captions = result.captioner.caption([image for image, _ in pairs])
    right = sum(c.text == texts[0] for c, (_, texts) in zip(captions, pairs))
    assert right == 16  # memorised
    assert result.metrics == {}
    assert result.report.is_file()


def test_nothing_is_overwritten_unasked(result, git_folder, pairs, tmp_path):
    with pytest.raises(OutputError, match=r"is not empty: resume goes on, overwrite"):
        run(git_folder, pairs, result.output_dir)
    own = tmp_path / "holiday"
    own.mkdir()
    (own / "photo.txt").write_text("mine")
    with pytest.raises(OutputError, match="not those of an earlier run"):
        run(git_folder, pairs, own, overwrite_output_dir=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        run(git_folder, pairs, tmp_path / "file")
    with pytest.raises(OutputError, match="Cannot write to output_dir"):
        run(git_folder, pairs, "/proc/captionkit")
    assert (own / "photo.txt").read_text() == "mine"


def test_overwriting_happens_only_when_all_else_is_in_order(git_folder, pairs, tmp_path):
    first = run(git_folder, pairs, tmp_path / "run", max_steps=2)
    before = (first.output_dir / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError):
        run(git_folder, pairs, first.output_dir, overwrite_output_dir=True, precision="fp16")
    with pytest.raises(ConfigError, match="matches no tensor"):
        run(git_folder, pairs, first.output_dir, overwrite_output_dir=True, freeze=["nothing.*"])
    with pytest.raises(ConfigError, match="need validation images"):
        run(
            git_folder, pairs, first.output_dir,
            overwrite_output_dir=True, test_size=0, best_metric="wer",
        )  # fmt: skip
    assert (first.output_dir / "model.safetensors").read_bytes() == before
    assert (first.output_dir / "checkpoint-2").exists()
    (first.output_dir / "notes.md").write_text("mine")
    again = run(git_folder, pairs, first.output_dir, overwrite_output_dir=True, max_steps=3)
    assert [row["step"] for row in again.history] == [2, 3]
    assert (first.output_dir / "notes.md").read_text() == "mine"
    assert not (first.output_dir / "checkpoint-2").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "fp16"}, "precision='fp16' needs a GPU"),
        ({"device": "cuda"}, "torch sees 0 CUDA devices"),
        ({"device": "meta"}, "device='meta' cannot be used here"),
        ({"device": "hpu"}, "device='hpu' cannot be used here"),
        ({"device": "quantum"}, "is not a device"),
        ({"devise": "cpu"}, "did you mean 'device'"),
        ({"freeze": ["git.nothing.*"]}, "matches no tensor"),
        ({"freeze": ["*"]}, "nothing to train"),
        ({"best_metric": "cider"}, "best_metric='cider'"),
        ({"backend": "torhc"}, "did you mean 'torch'"),
    ],
)
def test_impossible_settings_stop_before_training(git_folder, pairs, tmp_path, settings, words):
    if torch.cuda.is_available() and settings.get("device") == "cuda":
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match=words):
        run(git_folder, pairs, tmp_path / "run", **settings)
