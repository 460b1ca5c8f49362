"""Decoding settings of checkpoints, against what transformers reads from the same files."""

from __future__ import annotations

import dataclasses
import json
import warnings

import pytest
from transformers import GenerationConfig

from captionkit.decoding_defaults import decoding_defaults, generation_values
from captionkit.errors import CheckpointError
from captionkit.recipe import Decoding


def folder_with(tmp_path, generation=None, config=None):
    (tmp_path / "config.json").write_text(json.dumps(config or {"model_type": "git"}))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    return tmp_path


def test_what_transformers_saved_is_read(tmp_path):
    saved = GenerationConfig(
        num_beams=4, length_penalty=1.5, early_stopping=True, max_new_tokens=17, eos_token_id=[3, 7]
    )
    saved.save_pretrained(tmp_path)
    assert decoding_defaults(tmp_path) == {
        "num_beams": 4, "length_penalty": 1.5, "early_stopping": True, "max_new_tokens": 17,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({}, {}),
        ({"max_length": 20, "top_k": 50, "num_return_sequences": 3}, {}),  # the library's own
        ({"max_length": 16}, {"max_new_tokens": 15}),  # without the start token
        ({"max_length": 16, "max_new_tokens": 9}, {"max_new_tokens": 9}),
        ({"do_sample": True, "top_k": 50}, {"do_sample": True, "top_k": 50}),
        ({"top_p": None, "temperature": None}, {}),
    ],
)
def test_defaults_of_the_library_are_nobodys_choice(tmp_path, generation, expected):
    assert decoding_defaults(folder_with(tmp_path, generation)) == expected


def test_without_its_file_the_models_config_counts(tmp_path):
    decoder = {"model_type": "gpt2", "num_beams": 1, "max_length": 20, "length_penalty": 2.0,
               "repetition_penalty": 1.0, "min_length": 0, "no_repeat_ngram_size": 0,
               "num_beam_groups": 1, "diversity_penalty": 0.0, "typical_p": 1.0,
               "bad_words_ids": None, "suppress_tokens": None}  # fmt: skip
    config = {"model_type": "vision-encoder-decoder", "decoder": decoder, "num_beams": 3,
              "max_length": 9}  # fmt: skip
    folder = folder_with(tmp_path, None, config)
    assert decoding_defaults(folder) == {
        "num_beams": 3, "length_penalty": 2.0, "max_new_tokens": 8,
    }  # fmt: skip
    (folder / "generation_config.json").write_text("{}")
    assert decoding_defaults(folder) == {}


def test_what_we_do_not_have_is_named(tmp_path):
    generation = {"no_repeat_ngram_size": 3, "min_length": 5, "early_stopping": "never",
                  "num_beams": 2, "length_penalty": float("-inf")}  # fmt: skip
    with pytest.warns(UserWarning, match="does not apply") as caught:
        assert decoding_defaults(folder_with(tmp_path, generation)) == {"num_beams": 2}
    (message,) = [str(warning.message) for warning in caught]
    for name in ("no_repeat_ngram_size=3", "min_length=5", "early_stopping='never'", "=-inf"):
        assert name in message
    assert "num_beams" not in message


def test_what_transformers_writes_by_itself_warns_of_nothing(tmp_path):
    GenerationConfig().save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoding_defaults(tmp_path) == {}
        everything = folder_with(tmp_path, GenerationConfig().to_dict())
        # transformers 4 writes out what is so anyway
        said = decoding_defaults(everything)
    assert said == {name: getattr(Decoding(), name) for name in said}


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"num_beams": 3, "length_penalty": -2.0, "prompt": "a photo of"},
        {"do_sample": True}, {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "top_k": 7},
        {"early_stopping": True, "num_beams": 2, "max_new_tokens": 5, "temperature": 3.0},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "start",
    [
        {}, {"do_sample": True, "temperature": 1.5, "top_k": 3, "num_beams": 9, "max_length": 7},
        {"prompt": "x", "repetition_penalty": 2.0, "early_stopping": True, "bos_token_id": 4},
    ],
)  # fmt: skip
def test_a_model_captions_as_it_was_evaluated(tmp_path, start, settings):
    """What is written comes back, whatever the checkpoint before had; for transformers too."""
    wanted = Decoding(**settings)
    values = generation_values(start, wanted)
    folder = folder_with(tmp_path, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Decoding(**decoding_defaults(folder))
        theirs = GenerationConfig.from_pretrained(folder)
    if not wanted.do_sample:  # nothing is drawn
        wanted = dataclasses.replace(wanted, temperature=1.0)
    assert found == wanted
    assert theirs.max_new_tokens == wanted.max_new_tokens
    assert bool(theirs.do_sample) == wanted.do_sample
    assert theirs.repetition_penalty in (None, 1.0)
    assert values.get("bos_token_id") == start.get("bos_token_id")


def test_a_checkpoint_that_samples_draws_from_fifty_as_in_transformers(tmp_path):
    GenerationConfig(do_sample=True).save_pretrained(tmp_path)
    assert decoding_defaults(tmp_path) == {"do_sample": True, "top_k": 50}


@pytest.mark.parametrize(("text", "expected"), [("{", "cannot be read as JSON"), ("[1]", "list")])
def test_a_damaged_file_is_explained(tmp_path, text, expected):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=expected):
        decoding_defaults(tmp_path)
