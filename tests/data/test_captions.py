import json
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, GPT2TokenizerFast, PreTrainedTokenizerFast

from captionkit.data.captions import (
    build_word_tokenizer,
    encode_captions,
    frame,
    save_tokenizer,
)
from captionkit.errors import ConfigError, DataError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "tokenizers"
CAPTIONS = [
    "A black-and-white cat's nose, seen (very) close up!",
    "a cat and a dog.",
    "Two cats: one grey, one 50% white",
]


def tokenizer_with(template: str | None, **special: str) -> PreTrainedTokenizerFast:
    """Words a, b, c after the special tokens <1> to <4>, with any template."""
    vocabulary = {word: i for i, word in enumerate(["<1>", "<2>", "<3>", "<4>", "a", "b", "c"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<4>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        used = [(t, vocabulary[t]) for t in template.split() if t in vocabulary]
        inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


@pytest.mark.parametrize(
    ("template", "special", "expected"),
    [
        ("<1> $A <2>", {"cls_token": "<1>", "sep_token": "<2>"}, [0, 4, 5, 1]),  # BERT
        ("<1> $A <2>", {"bos_token": "<1>", "eos_token": "<2>"}, [0, 4, 5, 1]),  # BART
        ("$A <2>", {"eos_token": "<2>"}, [4, 5, 1]),  # T5
        ("<1> $A", {"bos_token": "<1>", "eos_token": "<2>"}, [0, 4, 5, 1]),  # Llama
        ("<2> $A", {"bos_token": "<2>", "eos_token": "<2>"}, [1, 4, 5, 1]),  # OPT
        (None, {"bos_token": "<2>", "eos_token": "<2>"}, [4, 5, 1]),  # GPT-2
        (None, {"sep_token": "<3>"}, [4, 5, 2]),
        ("<1> <3> $A <3> <2>", {"eos_token": "<2>"}, [0, 2, 4, 5, 2, 1]),
    ],
)
def test_every_caption_has_its_start_and_its_end(template, special, expected):
    tokenizer = tokenizer_with(template, **special)
    assert encode_captions(tokenizer, ["a b"]) == [expected]
    # cut to one word: start and end stay
    short = [token for token in expected if token != 5]
    assert encode_captions(tokenizer, ["a b", "a"], max_tokens=len(short)) == [short, short]
    assert encode_captions(tokenizer, []) == []


def test_a_tokenizer_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="eos_token"):
        encode_captions(tokenizer_with(None), ["a"])


def test_captions_that_are_too_long_are_named():
    tokenizer = build_word_tokenizer(CAPTIONS)
    with pytest.raises(DataError) as error:
        encode_captions(tokenizer, ["a cat", "a cat and a dog ."], limit=7, names=["x", "y"])
    assert "'a cat and a dog .' of y is 8 tokens long" in str(error.value)
    assert "max_caption_tokens=7" in str(error.value)
    encoded = encode_captions(tokenizer, ["a cat and a dog ."], max_tokens=7, limit=7)
    assert [len(ids) for ids in encoded] == [7]
    with pytest.raises(DataError, match="the model allows 5"):
        encode_captions(tokenizer, ["a cat and a dog ."], max_tokens=7, limit=5)
    with pytest.raises(ConfigError, match="max_caption_tokens=2"):
        encode_captions(tokenizer, ["a"], max_tokens=2)
    long = "cat " * 60
    with pytest.raises(DataError, match=r"c\.\.\.' is 62 tokens"):
        encode_captions(tokenizer, [long], limit=60)


def test_a_caption_of_nothing_is_named():
    with pytest.raises(DataError, match="nothing the tokenizer knows"):
        encode_captions(build_word_tokenizer(CAPTIONS), [" \t "])


def test_no_warning_of_the_tokenizers_own_limit(caplog):
    tokenizer = build_word_tokenizer(CAPTIONS)
    tokenizer.model_max_length = 3
    assert len(encode_captions(tokenizer, ["a cat and a dog ."])[0]) == 8
    assert not caplog.records


# ---- the word-level tokenizer


def test_the_vocabulary_is_every_word_by_frequency():
    tokenizer = build_word_tokenizer(CAPTIONS)
    vocabulary = tokenizer.get_vocab()
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    assert by_id[:4] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    # against a count that knows nothing of `tokenizers`
    words = re.findall(r"\w+(?:[-']\w+)*|[^\w\s]", " ".join(CAPTIONS).lower())
    expected = sorted(set(words), key=lambda word: (-words.count(word), word))
    assert by_id[4:] == expected
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert build_word_tokenizer(CAPTIONS).get_vocab() == vocabulary


def test_encoding_and_its_special_tokens():
    tokenizer = build_word_tokenizer(CAPTIONS)
    ids = tokenizer("A CAT, and a zebra")["input_ids"]
    vocabulary = tokenizer.get_vocab()
    expected = ["[CLS]", "a", "cat", ",", "and", "a", "[UNK]", "[SEP]"]
    assert ids == [vocabulary[word] for word in expected]
    assert frame(tokenizer) == ([2], [3])
    special = ("pad_token_id", "unk_token_id", "bos_token_id", "cls_token_id", "eos_token_id")
    assert [getattr(tokenizer, name) for name in special] == [0, 1, 2, 2, 3]
    assert set(tokenizer("a cat")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    "caption",
    [
        *CAPTIONS,
        "a cat's (very) black-and-white nose",
        "the grey, and the white; are they one? yes!",
        "caf\u00e9 na\u00efve \u043a\u043e\u0442",
    ],
)
def test_decoding_gives_the_caption_back(caption):
    tokenizer = build_word_tokenizer([*CAPTIONS, caption])
    ids = encode_captions(tokenizer, [caption])[0]
    assert tokenizer.decode(ids, skip_special_tokens=True) == caption.lower()


def test_equal_words_in_other_unicode_forms_are_one():
    tokenizer = build_word_tokenizer(["caf\u00e9", "cafe\u0301"])
    assert len(tokenizer.get_vocab()) == 5


def test_saved_and_loaded(tmp_path):
    tokenizer = build_word_tokenizer(CAPTIONS)
    save_tokenizer(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    for caption in [*CAPTIONS, "a zebra!"]:
        assert encode_captions(again, [caption]) == encode_captions(tokenizer, [caption])
        ids = encode_captions(again, [caption])[0]
        assert again.decode(ids, skip_special_tokens=True) == tokenizer.decode(
            ids, skip_special_tokens=True
        )
    assert (again.pad_token_id, again.bos_token_id, again.eos_token_id) == (0, 2, 3)
    assert set(again("a cat")) == {"input_ids", "attention_mask"}
    # the class name that transformers 4 knows as well
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.acceptance
def test_the_real_tokenizers():
    if not SHARED.exists():
        pytest.skip("../shared/data/tokenizers is not there")
    bert = AutoTokenizer.from_pretrained(SHARED / "bert-base-uncased")
    text = "A man riding a wave on top of a surfboard."
    assert encode_captions(bert, [text]) == [bert(text)["input_ids"]]
    assert encode_captions(bert, [text], max_tokens=5) == [
        bert(text, truncation=True, max_length=5)["input_ids"]
    ]
    assert frame(bert) == ([101], [102])
    gpt2 = GPT2TokenizerFast.from_pretrained(SHARED / "gpt2")
    assert encode_captions(gpt2, [text]) == [[*gpt2(text)["input_ids"], gpt2.eos_token_id]]
