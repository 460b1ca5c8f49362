"""From a model's name to a folder: what can be wrong with it, in one line each."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
from huggingface_hub import errors

import captionkit
from captionkit import models
from captionkit.data.dataset import CaptionDataset
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError, HubError


def test_folders_files_and_shipped_configs(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "git"}')
    assert models.resolve_model(str(tmp_path)) == tmp_path
    assert models.resolve_model(str(tmp_path / "config.json")) == tmp_path / "config.json"
    assert models.model_type(tmp_path) == models.model_type(tmp_path / "config.json") == "git"
    assert "git-tiny" in models.shipped_models()
    assert models.model_type(models.resolve_model("git-tiny")) == "git"


def test_wrong_folders_are_explained(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config.json. It holds: nothing"):
        models.resolve_model(str(tmp_path))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"It holds: notes.txt"):
        models.resolve_model(str(tmp_path))
    with pytest.raises(CheckpointError, match="not a model config"):
        models.resolve_model(str(tmp_path / "notes.txt"))
    with pytest.raises(CheckpointError, match=r"There is no folder \./nowhere"):
        models.resolve_model("./nowhere")
    for text in ("{", "[]", '{"a": 1}', '{"model_type": 3}', "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config.json"):
            models.model_type(tmp_path)


def test_a_config_is_trained_before_it_is_loaded():
    with pytest.raises(CheckpointError, match="git-tiny is a config to train from scratch"):
        captionkit.load("git-tiny")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("GatedRepoError", "is gated: accept its terms"),
        ("RepositoryNotFoundError", "There is no model 'some/model' on the hub"),
        ("OfflineModeIsEnabled", "the hub cannot be reached"),
        ("LocalEntryNotFoundError", "the hub cannot be reached"),
    ],
)
def test_hub_errors_are_one_line_with_what_to_do(monkeypatch, kind, words):
    error = getattr(errors, kind).__new__(getattr(errors, kind))
    Exception.__init__(error, "first line\nsecond line")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(HubError, match=words) as caught:
        models.resolve_model("some/model")
    assert "\n" not in str(caught.value)


def test_offline_a_hub_id_is_an_error_that_says_so():
    with pytest.raises(HubError, match="the hub cannot be reached"):
        models.resolve_model("microsoft/git-base")
    with pytest.raises(HubError, match="git-tiny"):
        models.resolve_model("gti-tiny")


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"image_size": 48, "vision_config": {"image_size": 32}}, (48, 48)),
        ({"vision_config": {"image_size": 32}, "encoder": None}, (32, 32)),
        ({"encoder": {"image_size": [64, 32]}, "vision_config": None}, (64, 32)),
        ({"vision_config": None}, (224, 224)),
    ],
)
def test_a_config_alone_gets_a_processor_of_its_image_size(tmp_path, config, size):
    source = tmp_path / "alone.json"
    source.write_text(json.dumps({"model_type": "git", **config}))
    train = CaptionDataset.from_pairs([("a.png", "a red dog")], "one")
    folder = models.prepare_model(source, tmp_path / "model", train, trust_remote_code=False)
    preprocess = Preprocessor.from_checkpoint(folder)
    assert (preprocess.height, preprocess.width) == size


def test_the_writer_of_a_checkpoint_is_in_its_recipe(tmp_path):
    from captionkit.recipe import Recipe

    assert models.writer_of(tmp_path) is None
    (tmp_path / "captionkit").mkdir()
    recipe = tmp_path / "captionkit/recipe.yaml"
    recipe.write_text(Recipe(backend="flax").to_yaml())
    assert models.writer_of(tmp_path) == "flax"
    recipe.write_text(json.dumps({"from": "the future"}))
    assert models.writer_of(tmp_path) is None
