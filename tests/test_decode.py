"""Pieces of text by token, for the kinds of tokenizers that captioners have."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from captionkit.data.captions import build_word_tokenizer
from captionkit.decode import decode_captions

TEXTS = ["a red fox jumps over the lazy dog", "naïve café 🦊🐕 don't", "日本の犬 is running"]


@pytest.fixture(scope="module")
def byte_level():
    """As GPT-2's: tokens are runs of bytes, of which a character may take several."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([TEXTS[0]], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )


@pytest.fixture(scope="module")
def word_piece():
    """As BERT's: pieces of words, joined by rules that also tidy up punctuation."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "run", "##ning", "dog", "do", "n", "'", "t", "."]
    model = models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", clean_up_tokenization_spaces=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def word_level():
    return build_word_tokenizer(["a red fox.", "some dog"])


def pieces(tokenizer, ids):
    log_probs = [-0.25 * (i + 1) for i in range(len(ids))]
    (caption,) = decode_captions(tokenizer, [ids], [log_probs], token_probabilities=True)
    assert caption.score == pytest.approx(sum(log_probs) / len(ids))
    given = [probability for _, probability in caption.token_probabilities]
    assert given == pytest.approx([math.exp(log) for log in log_probs])
    assert caption.text == tokenizer.decode(ids, skip_special_tokens=True).strip()
    found = [piece for piece, _ in caption.token_probabilities]
    assert "".join(found) == caption.text
    return found


def test_words(word_level):
    ids = [*word_level.convert_tokens_to_ids(["a", "red", "fox", "."]), 3]
    assert "".join(pieces(word_level, ids)) == "a red fox."
    assert [piece.strip() for piece in pieces(word_level, ids)] == ["a", "red", "fox", ".", ""]
    assert pieces(word_level, [3]) == [""]


def test_pieces_of_words(word_piece):
    ids = word_piece.convert_tokens_to_ids(["run", "##ning", "dog", ".", "[SEP]"])
    assert pieces(word_piece, ids) == ["run", "ning", " dog", ".", ""]
    # what comes later changes what was before: "do n ' t" is written "don't"
    ids = word_piece.convert_tokens_to_ids(["do", "n", "'", "t", "dog"])
    assert pieces(word_piece, ids)[-1] == " dog"


def test_bytes_of_characters(byte_level):
    ids = byte_level("a 🦊 dog")["input_ids"]
    assert len(ids) > 6
    found = pieces(byte_level, [*ids, byte_level.eos_token_id])
    assert found[0] == "a"
    assert found[-1] == ""
    # the character is the piece of the token that completes it
    assert [piece for piece in found if "🦊" in piece] == ["🦊"]
    assert found.count("") >= 3


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_pieces_of_any_tokens_are_the_text(data, byte_level, word_piece, word_level):
    for tokenizer in (byte_level, word_piece, word_level):
        ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), min_size=1, max_size=12))
        pieces(tokenizer, ids)


def test_without_being_asked_there_are_none(word_level):
    captions = decode_captions(word_level, [[4, 3], [5]], [[-1.0, -3.0], [-0.5]])
    assert [c.score for c in captions] == [-2.0, -0.5]
    assert [c.token_probabilities for c in captions] == [None, None]


def test_a_probability_is_never_above_one(word_level):
    (caption,) = decode_captions(word_level, [[4]], [[1e-7]], token_probabilities=True)
    assert caption.token_probabilities[0][1] == 1.0
