"""Recipes: flat from outside, nested in files, checked on construction."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.errors import ConfigError
from captionkit.recipe import (
    DataConfig,
    Decoding,
    Recipe,
    TrainingConfig,
    field_names,
    shipped_recipes,
)


def test_no_field_name_occurs_twice():
    names = field_names()
    assert len(names) == len(set(names))


def test_every_field_has_a_help_text():
    """tyro takes it from the docstring under the field."""
    import inspect
    import re

    for kind in (Recipe, DataConfig, TrainingConfig, Decoding):
        source = inspect.getsource(kind)
        for field in dataclasses.fields(kind):
            if field.name in ("data", "training", "decoding"):
                continue
            assert re.search(rf'\n    {field.name}: [^\n]*\n    """', source), field.name


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_files_round_trip(tmp_path, suffix):
    recipe = Recipe(
        model="a/b",
        backend_options={"device": "cpu"},
        data=DataConfig(dataset="coco", captions="all", test_size=0.25),
        training=TrainingConfig(freeze=("git.*",), eval_steps=0, learning_rate=1e-5),
        decoding=Decoding(num_beams=4, length_penalty=0.5),
    )
    path = tmp_path / f"recipe{suffix}"
    path.write_text(recipe.to_yaml() if suffix == ".yaml" else recipe.to_json(), encoding="utf-8")
    assert Recipe.from_file(path) == recipe


settings = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text(min_size=1, max_size=30),
        "learning_rate": st.floats(1e-12, 1e3),
        "epochs": st.floats(1e-3, 1e4),
        "batch_size": st.integers(1, 10_000),
        "label_smoothing": st.floats(0, 0.99),
        "num_beams": st.integers(1, 64),
        "captions": st.sampled_from(["random", "all", "first"]),
        "freeze": st.lists(st.text(max_size=20), max_size=4).map(tuple),
        "max_steps": st.none() | st.integers(1, 10**9),
    },
)


@given(settings)
def test_flat_settings_round_trip_through_both_forms(tmp_path_factory, values):
    recipe = Recipe().replace(**values)
    assert all(recipe.flat()[name] == value for name, value in values.items())
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "r.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    (folder / "r.json").write_text(recipe.to_json(), encoding="utf-8")
    assert Recipe.from_file(folder / "r.yaml") == recipe == Recipe.from_file(folder / "r.json")


def test_yaml_floats_without_a_dot_are_numbers(tmp_path):
    """YAML 1.1 reads 5e-5 as text; people write it all the same."""
    path = tmp_path / "r.yaml"
    path.write_text("training:\n  learning_rate: 5e-5\n  epochs: 2\n")
    recipe = Recipe.from_file(path)
    assert recipe.training.learning_rate == 5e-5
    assert recipe.training.epochs == 2.0
    assert isinstance(recipe.training.epochs, float)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rat": 1}, ["learning_rat", "did you mean 'learning_rate'"]),
        ({"learning_rate": 0}, ["learning_rate=0", "above 0"]),
        ({"learning_rate": "fast"}, ["learning_rate='fast'", "a number"]),
        ({"learning_rate": float("nan")}, ["learning_rate=nan"]),
        ({"batch_size": 2.5}, ["batch_size=2.5", "a whole number"]),
        ({"batch_size": True}, ["batch_size=True", "a whole number"]),
        ({"batch_size": 10, "accumulation_steps": 3}, ["batch_size=10", "accumulation_steps=3"]),
        ({"schedule": "lineer"}, ["schedule='lineer'", "linear, cosine, constant"]),
        ({"captions": "some"}, ["random, all, first"]),
        ({"test_size": 1.0}, ["test_size=1.0"]),
        ({"metrics": "wer"}, ["metrics='wer'", "a list of text"]),
        ({"num_return_sequences": 2}, ["num_return_sequences=2", "num_beams"]),
        (
            {"num_return_sequences": 4, "num_beams": 2, "do_sample": True},
            ["num_return_sequences=4", "num_beams=2"],
        ),
        ({"model": "a", "encoder": "b", "decoder": "c"}, ["either model"]),
        ({"encoder": "b"}, ["encoder and decoder go together"]),
        ({"resume": True, "overwrite_output_dir": True}, ["choose one"]),
        ({"precision": "fp8"}, ["auto, fp32, bf16, fp16"]),
        ({"temperature": 0.0}, ["temperature=0.0"]),
    ],
)
def test_impossible_settings_are_named(settings, words):
    with pytest.raises(ConfigError) as error:
        Recipe().replace(**settings)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training:\n  batch_siz: 2\n", ["batch_siz", "did you mean 'batch_size'"]),
        ("batch_size: 2\n", ["'batch_size' belongs under 'training'"]),
        ("training:\n  model: x\n", ["'model' belongs at the top level"]),
        ("training: 3\n", ["'training' should hold settings"]),
        ("- a\n- b\n", ["should hold settings by name"]),
        ("a: [1\n", ["not valid YAML"]),
        ("!!python/object/apply:os.system ['true']\n", ["not valid YAML"]),
    ],
)
def test_broken_files_are_explained(tmp_path, text, words):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        Recipe.from_file(path)
    for word in words:
        assert word in str(error.value)


def test_missing_and_unknown_recipes_are_explained(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read the recipe"):
        Recipe.of(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        Recipe.of("quikstart")


def test_git_pokemon_is_the_guide():
    """Every setting of the transformers image-captioning guide."""
    recipe = Recipe.named("git-pokemon")
    assert recipe.model == "microsoft/git-base"
    assert recipe.data.dataset == "pokemon-blip"
    assert recipe.data.test_size == 0.1
    training = recipe.training
    assert training.learning_rate == 5e-5
    assert training.epochs == 50
    assert training.batch_size // training.accumulation_steps == 32
    assert training.accumulation_steps == 2
    assert training.eval_batch_size == 32
    assert training.eval_steps == training.save_steps == training.logging_steps == 50
    assert training.save_total_limit == 3
    assert training.load_best
    assert training.precision == "auto"
    assert "wer" in training.metrics
    assert recipe.decoding.max_new_tokens == 50
    assert recipe.push_to_hub is False


def test_shipped_recipes_load():
    for name in shipped_recipes():
        recipe = Recipe.named(name)
        assert Recipe.from_dict(json.loads(recipe.to_json())) == recipe
