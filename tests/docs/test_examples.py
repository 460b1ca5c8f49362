"""The scripts of examples/, on small data (finetune_git_pokemon.py: tests/backends/torch)."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script(monkeypatch):
    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # where dataclasses look annotations up
        spec.loader.exec_module(module)
        return module

    return load


def test_score_like_coco_gives_the_figures_of_score(script, tmp_path, capsys):
    import captionkit

    predictions = ["a dog runs on the beach", "nothing", "a red bus"]
    references = [["A dog running along a beach."], ["Two cats on a sofa."], ["a red bus"]]
    rows = [
        {"image_id": i, "prediction": p, "references": r}
        for i, (p, r) in enumerate(zip(predictions, references))
    ]
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = script("score_like_coco").main([str(file), "--by", "rouge_l", "--show", "1"])
    wanted = captionkit.score(predictions, references, metrics=["bleu", "rouge_l", "cider"])
    assert scores.scores.corpus == wanted
    printed = capsys.readouterr().out
    best, worst = printed[printed.index("best") :].split("worst")
    assert "a red bus" in best
    assert "nothing" in worst


def test_the_custom_metric_counts_colours(script):
    import captionkit

    module = script("custom_metric")
    predictions = ["a blue cat", "a Red, green bus", "a dog"]
    references = [["a blue and black cat"], ["a red bus", "green bus"], ["a dog", "a puppy"]]
    values = captionkit.score(predictions, references, metrics=[module.ColourRecall()])
    assert values == {"colour_recall": 3 / 4}
    metric = module.ColourRecall()
    for pair in zip(predictions, references):
        metric.update(*pair)
    assert metric.compute().per_image == {"colour_recall": [0.5, 1.0, 1.0]}


def test_custom_metric_runs(script, here, capsys):
    values = script("custom_metric").main(["--model", "git-critters", "--data-dir", "photos"])
    assert 0 <= values["colour_recall"] <= 1
    assert f"colour_recall  {values['colour_recall']:.4f}" in capsys.readouterr().out


def test_caption_folder_runs(script, here, capsys):
    (here / "more-photos" / "broken.jpg").write_bytes(b"nothing")
    script("caption_folder").main(["more-photos", "--model", "git-critters", "--review-below", "0"])
    with open("captions.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "more-photos" in row["image"]]
    assert len(rows) == 4
    printed = capsys.readouterr().out
    assert "4 images captioned" in printed
    assert "1 failed" in printed
    assert all(row["image"] in printed for row in rows)


def test_run_image_captioning_flax_runs(script, here, checkpoints):
    pytest.importorskip("jax")
    script("run_image_captioning_flax").main(
        ["--output_dir", "results", "--encoder_model_name_or_path", str(checkpoints / "vit"),
         "--decoder_model_name_or_path", str(checkpoints / "gpt2"), "--dataset_name", "coco",
         "--data_dir", "data", "--do_train", "--do_eval", "--predict_with_generate",
         "--num_train_epochs", "1", "--learning_rate", "3e-5", "--max_target_length", "32",
         "--num_beams", "2"]
    )  # fmt: skip
    pairs = json.loads((here / "results" / "eval_generation.json").read_text())
    assert len(pairs) == 10  # two images, five captions each
    assert (here / "results" / "eval_results.json").is_file()
