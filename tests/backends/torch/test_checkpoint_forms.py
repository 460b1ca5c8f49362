"""Every form of a checkpoint that is read, and every way in which one can be wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForCausalLM

import captionkit
from captionkit.errors import CheckpointError, ConfigError, NotInstalledError


@pytest.fixture
def folder(git_folder, tmp_path):
    copy = tmp_path / "checkpoint"
    shutil.copytree(git_folder, copy)
    return copy


@pytest.fixture(scope="module")
def expected(captioner, pairs):
    return [c.text for c in captioner.caption([image for image, _ in pairs[:3]])]


def captions(folder, pairs):
    captioner = captionkit.load(folder, device="cpu")
    return [c.text for c in captioner.caption([image for image, _ in pairs[:3]])]


def test_sharded_safetensors(folder, pairs, expected):
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert captions(folder, pairs) == expected


def test_pytorch_model_bin(folder, pairs, expected):
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert captions(folder, pairs) == expected


class Attack:
    def __reduce__(self):
        import os

        return os.system, ("echo attacked > attacked.txt",)


def test_a_pickle_that_runs_code_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"git.weight": Attack()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model in .* cannot be loaded"):
        captionkit.load(folder)
    assert not (tmp_path / "attacked.txt").exists()


def test_both_forms_of_the_processor_file(folder, pairs, expected):
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert captions(folder, pairs) == expected
    AutoImageProcessor.from_pretrained(folder)


def test_bf16_and_fp32(folder, pairs, expected):
    captioner = captionkit.load(folder, device="cpu", dtype="bf16")
    assert captioner.model.dtype == torch.bfloat16
    assert len(captioner.caption(pairs[0][0])) == 1
    with pytest.raises(ConfigError, match="dtype='fp16' needs a GPU"):
        captionkit.load(folder, device="cpu", dtype="fp16")
    with pytest.raises(ConfigError, match="fp32, bf16, fp16"):
        captionkit.load(folder, dtype="float32")


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def truncated_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def garbage_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)


def another_width(folder):
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(config))


def another_depth(folder):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")


def no_processor(folder):
    (folder / "preprocessor_config.json").unlink()


def broken_config(folder):
    (folder / "config.json").write_text('{"model_type": "git", "hidden_size": "wide"}')


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without_weights, "holds a config but no weights"),
        (truncated_weights, "cannot be loaded"),
        (garbage_weights, "cannot be loaded"),
        (another_width, "of another shape: .*intermediate"),
        (another_depth, r"missing from the file: git.encoder.layer.2"),
        (no_tokenizer, "no tokenizer that can be loaded"),
        (broken_tokenizer, "no tokenizer that can be loaded"),
        (no_processor, "preprocessor_config.json"),
        (broken_config, r"config.json cannot be used|cannot be loaded"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(folder, harm, words):
    harm(folder)
    with pytest.raises(CheckpointError, match=words):
        captionkit.load(folder, device="cpu")


def test_unsupported_model_types_are_named(folder):
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="type 'bert'"):
        captionkit.load(folder)
    with pytest.raises((ConfigError, NotInstalledError), match="torhc"):
        captionkit.load(folder, backend="torhc")
