"""Real photos and the real BERT vocabulary, from the command line."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import captionkit
from captionkit.cli import main

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
@pytest.mark.acceptance
def test_a_small_git_memorises_the_training_photos(shared_data, tmp_path, capsys):
    model = tmp_path / "small-git"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(SMALL_GIT))
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(shared_data / "tokenizers/bert-base-uncased" / name, model / name)
    coco = ["--dataset", "coco", "--data-dir", str(shared_data / "coco-mini")]
    output = tmp_path / "memory"
    status = main(
        ["finetune", "--model", str(model), *coco, "--output_dir", str(output),
         "--captions", "first", "--epochs", "60", "--batch-size", "8", "--learning-rate", "1e-3",
         "--warmup-steps", "20", "--eval-steps", "0", "--save-steps", "0", "--device", "cpu",
         "--precision", "fp32", "--max-new-tokens", "24"]
    )  # fmt: skip
    assert status == 0
    assert "report.html" in capsys.readouterr().out

    scores = tmp_path / "scores"
    status = main(
        ["evaluate", "--model", str(output), *coco, "--split", "train", "--captions", "first",
         "--output-dir", str(scores), "--device", "cpu"]
    )  # fmt: skip
    assert status == 0
    printed = capsys.readouterr().out
    wer = float(re.search(r"^wer +(\S+)$", printed, re.M)[1])
    assert json.loads((scores / "metrics.json").read_text())["wer"] == pytest.approx(wer, abs=1e-3)
    assert wer <= 0.05

    captioner = captionkit.load(output)
    train = captionkit.load_dataset(
        "coco", split="train", data_dir=str(shared_data / "coco-mini"), captions="first"
    )
    assert len(train) == 37
    captions = captioner.caption([example.image for example in train])
    spoken = [captioner.tokenizer.decode(captioner.tokenizer(e.captions[0])["input_ids"],
                                         skip_special_tokens=True) for e in train]  # fmt: skip
    right = sum(c.text == text for c, text in zip(captions, spoken))
    assert right >= 33
    with capsys.disabled():
        print(f"\nmemorised: WER {wer:.4f}, {right} of 37 captions word for word")
