"""Bulk captioning with a torch model: see bulk_policy.py; and real photos."""

from __future__ import annotations

import json
import shutil

import pytest
from bulk_policy import (  # noqa: F401 (the tests, and the fixture that they ask for)
    photos,
    test_draws_do_not_depend_on_the_batch,
    test_it_writes_what_the_captioner_says,
    test_token_probabilities_are_kept,
)

import captionkit
from captionkit.cli import main

SMALL_GIT = {
    "model_type": "git",
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "vision_config": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "image_size": 64, "patch_size": 16,
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The 85 captions:UserWarning")
@pytest.mark.filterwarnings("ignore:.*same caption:UserWarning")
@pytest.mark.acceptance
def test_the_photos_of_coco_with_a_model_trained_on_them(shared_data, tmp_path, capsys):
    model = tmp_path / "small-git"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(SMALL_GIT))
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(shared_data / "tokenizers/bert-base-uncased" / name, model / name)
    status = main(
        ["finetune", "--model", str(model), "--dataset", "coco", "--data-dir",
         str(shared_data / "coco-mini"), "--output_dir", str(tmp_path / "trained"),
         "--captions", "first", "--epochs", "12", "--batch-size", "8", "--learning-rate", "2e-3",
         "--eval-steps", "0", "--save-steps", "0", "--device", "cpu", "--precision", "fp32"]
    )  # fmt: skip
    assert status == 0
    shutil.copytree(shared_data / "coco-mini" / "train2017", tmp_path / "photos")
    shutil.copytree(shared_data / "coco-mini" / "val2017", tmp_path / "photos" / "val")
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    command = ["caption", str(tmp_path / "photos"), "--model", str(tmp_path / "trained")]
    assert main([*command, "--format", "txt", "--device", "cpu"]) == 0
    assert f"captioned  {len(paths)}" in capsys.readouterr().out
    captioner = captionkit.load(tmp_path / "trained", device="cpu")
    for path, caption in zip(paths, captioner.caption(paths), strict=True):
        assert path.with_suffix(".txt").read_text() == caption.text + "\n"
