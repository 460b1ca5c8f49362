"""Whole runs of a tiny GIT: what they write, and that they are exact."""

from __future__ import annotations

import json
import math
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file
from stopping import StopAt
from transformers import AutoModelForCausalLM

import captionkit
from captionkit.backends.torch.batches import pad_captions
from captionkit.backends.torch.captioner import normalised
from captionkit.errors import ConfigError, OutputError, TrainingInterrupted

SMALL = {
    "device": "cpu", "batch_size": 4, "learning_rate": 2e-3, "eval_batch_size": 8,
    "test_size": 0.25, "metrics": ["wer"], "max_new_tokens": 10, "logging_steps": 2,
    "precision": "fp32",
}  # fmt: skip


def run(git_folder, pairs, output_dir, **settings):
    return captionkit.finetune(
        model=str(git_folder), dataset=pairs, output_dir=str(output_dir), **{**SMALL, **settings}
    )


def without_speed(history):
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


@pytest.fixture(scope="module")
def result(git_folder, pairs, tmp_path_factory):
    return run(git_folder, pairs, tmp_path_factory.mktemp("runs") / "whole", epochs=4)


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
    AutoModelForCausalLM.from_pretrained(result.output_dir)


def test_history_and_metrics_agree(result):
    # 12 of 16 images train: 3 steps an epoch, 12 in all
    assert [row["step"] for row in result.history if "loss" in row] == [2, 4, 6, 8, 10, 12]
    evaluated = {row["step"]: row for row in result.history if "eval_loss" in row}
    assert list(evaluated) == [3, 6, 9, 12]
    best = min(evaluated.values(), key=lambda row: row["eval_loss"])
    assert result.metrics == {"loss": best["eval_loss"], "wer": best["eval_wer"]}
    assert json.loads((result.output_dir / "captionkit/metrics.json").read_text()) == result.metrics


def test_the_saved_model_is_the_one_that_was_evaluated(result, pairs):
    rows = [
        json.loads(line)
        for line in (result.output_dir / "captionkit/predictions.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 4
    by_id = {str(i): image for i, (image, _) in enumerate(pairs)}
    captions = result.captioner.caption([by_id[row["image_id"]] for row in rows])
    assert [c.text for c in captions] == [row["prediction"] for row in rows]
    assert [c.score for c in captions] == pytest.approx([row["score"] for row in rows], abs=1e-5)
    total, count = result.captioner.loss(
        [by_id[row["image_id"]] for row in rows], [row["references"] for row in rows]
    )
    assert total / count == pytest.approx(result.metrics["loss"], rel=1e-5)


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


def test_the_best_weights_are_kept_and_early_stopping_stops(git_folder, pairs, tmp_path):
    """A learning rate that destroys the model: the first evaluation is the best."""
    result = run(
        git_folder, pairs, tmp_path / "run", epochs=20, learning_rate=0.5, schedule="constant",
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
    assert all(torch.equal(kept[name], final[name]) for name in kept)


def test_frozen_tensors_do_not_move(git_folder, pairs, tmp_path):
    result = run(git_folder, pairs, tmp_path / "run", max_steps=3, freeze=["git.image_encoder.*"])
    before = load_file(git_folder / "model.safetensors")
    after = load_file(result.output_dir / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        frozen = name.startswith("git.image_encoder.")
        assert torch.equal(before[name], after[name]) == frozen, name
    info = json.loads((result.output_dir / "captionkit/run.json").read_text())
    encoder = sum(t.numel() for n, t in before.items() if n.startswith("git.image_encoder."))
    assert info["parameters"] - info["trainable"] == encoder


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


def test_a_bad_image_in_training_stops_or_is_skipped(git_folder, pairs, tmp_path):
    bad = tmp_path / "bad.jpg"
    pairs[0][0].save(bad)
    bad.write_bytes(bad.read_bytes()[:200])
    mixed = [*pairs[:7], (str(bad), "never seen"), *pairs[7:]]
    with pytest.raises(captionkit.CaptionkitError, match=r"bad.jpg"):
        run(git_folder, mixed, tmp_path / "a", epochs=1, test_size=0)
    result = run(
        git_folder, mixed, tmp_path / "b", epochs=2, test_size=0, on_bad_image="skip", batch_size=1
    )
    assert list(result.skipped) == [str(bad)]
    log = (result.output_dir / "captionkit/skipped.jsonl").read_text()
    assert "bad.jpg" in log
    assert all(math.isfinite(row["loss"]) for row in result.history if "loss" in row)


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
    assert (first.output_dir / "model.safetensors").read_bytes() == before
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


def test_captions_longer_than_the_model_are_named_or_cut(git_folder, pairs, tmp_path):
    long = [*pairs, (pairs[0][0], "red " * 40)]
    with pytest.raises(captionkit.CaptionkitError, match=r"42 tokens long.*max_caption_tokens=24"):
        run(git_folder, long, tmp_path / "a", test_size=0)
    result = run(git_folder, long, tmp_path / "b", test_size=0, max_caption_tokens=24, max_steps=2)
    assert result.history


def test_a_divergence_is_named(git_folder, pairs, tmp_path):
    with pytest.raises(captionkit.CaptionkitError, match=r"loss became (nan|inf) at step \d+"):
        run(git_folder, pairs, tmp_path / "run", learning_rate=1e38, adam_epsilon=1e-30,
            max_grad_norm=0, weight_decay=1.0, epochs=20)  # fmt: skip
