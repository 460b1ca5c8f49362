"""The guide's own command on real photos and the real GPT-2 vocabulary."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from captionkit.data.preprocess import Preprocessor

EXAMPLE = Path(__file__).parents[3] / "examples" / "run_image_captioning_flax.py"
VIT = {
    "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256,
    "image_size": 96, "patch_size": 16,
}  # fmt: skip
GPT2 = {
    "vocab_size": 50257, "n_positions": 64, "n_embd": 128, "n_layer": 3, "n_head": 4,
    "n_inner": 256, "bos_token_id": 50256, "eos_token_id": 50256,
}  # fmt: skip
GUIDE = """
    --dataset_name ydshieh/dummy_coco_dataset --dataset_config_name=2017
    --image_column image_path --caption_column caption
    --do_train --do_eval --predict_with_generate
    --num_train_epochs 1 --eval_steps 500 --learning_rate 3e-5 --warmup_steps 0
    --per_device_train_batch_size 32 --per_device_eval_batch_size 32 --overwrite_output_dir
    --max_target_length 32 --num_beams 8 --preprocessing_num_workers 16 --logging_steps 10
    --block_size 16384
""".split()


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("run_image_captioning_flax", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def fresh(shapes):
    """Initial weights: normal, norms as they begin, biases zero."""
    draw = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes.items():
        norm = any(part.startswith(("ln_", "layernorm")) for part in name.split("."))
        value = np.float32(0.08) * draw.normal(size=shape).astype(np.float32)
        if name.endswith("bias"):
            value = np.zeros(shape, np.float32)
        tensors[name] = np.ones(shape, np.float32) if norm and name.endswith("weight") else value
    return tensors


@pytest.fixture(scope="module")
def parts(make, shared_data, tmp_path_factory):
    """A small ViT and a small GPT-2, as two checkpoints, with GPT-2's own tokenizer."""
    folder = tmp_path_factory.mktemp("parts")
    config = make.config(VIT, GPT2)
    make.checkpoint(folder / "vit", config["encoder"], fresh(make.vit_shapes(config["encoder"])))
    Preprocessor.square(96).save(folder / "vit")
    alone = {
        name: value
        for name, value in config["decoder"].items()
        if name not in ("is_decoder", "add_cross_attention", "pad_token_id")
    }
    shapes = make.gpt2_shapes(alone, cross_attention=False)
    make.checkpoint(folder / "gpt2", alone, fresh(shapes))
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(shared_data / "tokenizers" / "gpt2" / name, folder / "gpt2" / name)
    return [
        "--encoder_model_name_or_path", str(folder / "vit"),
        "--decoder_model_name_or_path", str(folder / "gpt2"),
    ]  # fmt: skip


@pytest.mark.acceptance
@pytest.mark.filterwarnings("ignore:The 85 captions fit")  # six updates teach nothing
def test_the_guides_command_evaluates_every_caption_and_writes_every_file(
    script, parts, shared_data, tmp_path, capsys
):
    output = tmp_path / "results"
    coco = ["--data_dir", str(shared_data / "coco-mini")]
    script.main(["--output_dir", str(output), *parts, *GUIDE, *coco])
    names = {path.name for path in output.iterdir()}
    assert {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
        "preprocessor_config.json", "eval_results.json", "eval_generation.json", "log",
    } <= names  # fmt: skip
    assert list(output.glob("captionkit/tensorboard/events.*"))
    results = json.loads((output / "eval_results.json").read_text())
    assert set(results) == {
        "eval_loss", "eval_rouge1", "eval_rouge2", "eval_rougeL", "eval_rougeLsum", "eval_gen_len",
    }  # fmt: skip
    rows = json.loads((output / "eval_generation.json").read_text())
    assert len(rows) == 425
    assert all(row["label"] == row["label"].lower() for row in rows)
    # 185 captions, 32 in an update: the last update is a part of one, and is not dropped
    assert "step: 6 | epoch: 1.0" in (output / "log").read_text()
    assert "block_size=16384: decoded images are not kept" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--learning_rte", "1", "--output_dir", str(output)])
    assert "unrecognized arguments: --learning_rte 1" in capsys.readouterr().err


@pytest.mark.long
def test_csv_files_and_one_json_argument_memorise_the_training_photos(
    script, parts, shared_data, tmp_path, capsys
):
    coco = shared_data / "coco-mini"
    files = {}
    for split in ("train", "val"):
        content = json.loads((coco / f"annotations/captions_{split}2017.json").read_text())
        paths = {image["id"]: image["file_name"] for image in content["images"]}
        files[split] = str(tmp_path / f"{split}.csv")
        with open(files[split], "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["photo", "words"])
            for note in content["annotations"]:
                writer.writerow([coco / f"{split}2017" / paths[note["image_id"]], note["caption"]])
    output = tmp_path / "results"
    settings = {
        "output_dir": str(output), "encoder_model_name_or_path": parts[1],
        "decoder_model_name_or_path": parts[3], "train_file": files["train"],
        "test_file": files["train"], "image_column": "photo", "caption_column": "words",
        "do_train": True, "do_predict": True, "predict_with_generate": True,
        "num_train_epochs": 40, "learning_rate": 1e-3, "warmup_steps": 50, "num_beams": 2,
        "per_device_train_batch_size": 8, "per_device_eval_batch_size": 40,
        "max_target_length": 32, "logging_steps": 50,
    }  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps(settings))
    script.main([str(tmp_path / "all.json")])
    assert "block_size=0: decoded images are kept below" in capsys.readouterr().err
    results = json.loads((output / "test_results.json").read_text())
    assert len(json.loads((output / "test_generation.json").read_text())) == 185
    assert results["test_rougeL"] >= 95
    assert not (output / "eval_results.json").exists()
