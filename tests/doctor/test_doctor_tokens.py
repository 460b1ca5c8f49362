"""Token counts against the tokenizer itself, and limits against transformers' configs."""

from __future__ import annotations

import json
import statistics

import pytest

from captionkit.data.captions import build_word_tokenizer
from captionkit.doctor.listing import Entry
from captionkit.doctor.tokens import TokenCounts, count_tokens, text_limit
from captionkit.errors import CheckpointError
from captionkit.models import shipped_models

TEXTS = ["a red dog", "a dog", "two red dogs on a mat", "a", "zebra dog", "a red dog.", "..."]


@pytest.fixture
def model(tmp_path):
    build_word_tokenizer(["a red dog on mat two dogs"]).save_pretrained(tmp_path)
    config = {"model_type": "git", "max_position_embeddings": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    return str(tmp_path)


def entries(texts, split="train"):
    return [Entry(split, str(i), (text,), "") for i, text in enumerate(texts)]


def test_counts_are_those_of_the_tokenizer(model):
    from transformers import AutoTokenizer

    counts, cases = count_tokens(model, entries([*TEXTS, " "]), [str(i) for i in range(8)])
    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    for length, count in counts.lengths.items():
        assert lengths.count(length) == count
    assert sum(counts.lengths.values()) == len(TEXTS)
    assert (counts.limit, counts.at(1)) == (7, max(lengths))
    assert counts.at(0.5) == statistics.median_low(lengths)
    ids = [token for text in TEXTS for token in tokenizer(text)["input_ids"]]
    words = len(ids) - 2 * len(TEXTS)
    assert counts.unknown_share == pytest.approx(ids.count(tokenizer.unk_token_id) / words)
    assert [item.names for item in cases["too_many_tokens"]] == [("2",)]
    assert cases["too_many_tokens"][0].detail == "8 tokens: two red dogs on a mat"
    assert [(i.names, i.detail) for i in cases["unknown_tokens"]] == [
        (("4",), "1 of 2 tokens: zebra dog"), (("5",), "1 of 4 tokens: a red dog."),
        (("6",), "3 of 3 tokens: ..."),
    ]  # fmt: skip


def test_captions_that_vanish_are_named(model):
    _, cases = count_tokens(model, entries(["a dog", "\u200b"]), ["0", "1"])
    lengths = [len(items) for items in cases.values()]
    # the word tokenizer takes a zero-width space for nothing, or for an unknown sign
    assert sum(lengths) == 1


def test_few_unknown_words_are_no_finding(model):
    texts = ["a red dog on a mat"] * 40 + ["zebra"]
    counts, cases = count_tokens(model, entries(texts), [str(i) for i in range(41)])
    assert 0 < counts.unknown_share < 0.01
    assert "unknown_tokens" not in cases


def test_a_model_without_a_tokenizer_gets_that_of_its_training():
    rows = entries(["a red dog"]) + entries(["a blue dog"], "validation")
    counts, _ = count_tokens("git-tiny", rows, ["0", "1"])
    assert counts.unknown_share == pytest.approx(1 / 6)
    assert counts.lengths == {5: 2}


@pytest.mark.parametrize("kind", ["git", "blip", "gpt2", "bert", "roberta", "opt"])
def test_limits_by_config_alone(tmp_path, kind):
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind)
    text = getattr(config, "text_config", config)
    wanted = text.max_position_embeddings - (2 if kind == "roberta" else 0)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert text_limit(tmp_path) == wanted
    # as decoder of a pair; and where what is the default is not written
    pair = {"model_type": "vision-encoder-decoder", "decoder": config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(pair))
    assert text_limit(tmp_path) == wanted
    (tmp_path / "config.json").write_text(json.dumps({"decoder": {"model_type": kind}}))
    if kind != "blip":  # whose text part has a name of its own
        assert text_limit(tmp_path) == wanted
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    assert text_limit(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_a_damaged_config_is_an_error_of_ours(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        text_limit(tmp_path)


def test_every_shipped_model_has_a_limit():
    from captionkit.models import resolve_model

    for name in shipped_models():
        assert text_limit(resolve_model(name)) >= 16, name


def test_shares_are_nearest_ranks():
    counts = TokenCounts("m", {3: 50, 4: 44, 9: 6}, None, 0.0)
    assert (counts.at(0.5), counts.at(0.51), counts.at(0.94), counts.at(0.95)) == (3, 4, 4, 9)
    assert TokenCounts("m", {}, None, 0.0).at(0.5) == 0
    assert str(counts) == "median 3, 95 % up to 9, longest 9; 0 % unknown"
