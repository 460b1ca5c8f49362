"""Tokenizers, image processors and configs of checkpoints that others published."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from fuzz.harness import fuzz
from fuzz.mutations import any_file, documents, dumped

from captionkit.data.captions import build_word_tokenizer, encode_captions, save_tokenizer
from captionkit.data.preprocess import Preprocessor
from captionkit.models import load_tokenizer, model_type

WORDS = build_word_tokenizer(["a dog on a mat", "two cats"])
VALUES = [
    "a",
    0,
    1,
    2,
    "[CLS]",
    "[UNK]",
    "BertTokenizer",
    "GPT2Tokenizer",
    "WordPiece",
    "BPE",
    {"type": "Lowercase"},
    {"type": "x"},
    "PreTrainedTokenizerFast",
    {"AutoTokenizer": ["x.y", None]},
]


@pytest.fixture
def folder(tmp_path):
    save_tokenizer(WORDS, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "git"}')
    logging.disable()
    yield tmp_path
    logging.disable(logging.NOTSET)


def seeds(name: str) -> list[Any]:
    if name == "config.json":
        return [{"model_type": "git"}, {"model_type": "bert", "vocab_size": 9}]
    if name == "tokenizer_config.json":
        return [
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "unk_token": "[UNK]",
                "pad_token": "[PAD]",
                "eos_token": "[SEP]",
                "model_max_length": 99,
                "added_tokens_decoder": {"0": {"content": "[PAD]", "special": True}},
            }
        ]
    return [json.loads(WORDS.backend_tokenizer.to_str())]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_tokenizers(folder, name):
    def read(content: bytes) -> None:
        (folder / name).write_bytes(content)
        if name == "config.json":
            model_type(folder)
        tokenizer = load_tokenizer(folder)
        encode_captions(tokenizer, ["a dog", "zebra \U0001f600"])

    documents_ = documents(seeds(name), values=VALUES)
    fuzz(name, any_file([dumped(one) for one in seeds(name)], (), documents_), read)


PROCESSORS = [
    {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 224},
        "resample": 3,
        "crop_size": {"height": 8, "width": 8},
        "do_center_crop": True,
        "image_mean": [0.5, 0.5, 0.5],
    },
    {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 8, "width": 8},
        "image_std": [1, 1, 1],
        "rescale_factor": 0.5,
    },
    {"image_processor": {"image_processor_type": "ConvNextImageProcessor", "size": 224}},
]


def test_image_processors(tmp_path):
    values = [
        {"height": 8, "width": 8},
        {"shortest_edge": 9},
        [8, 8],
        8,
        [0, 0, 0],
        "BitImageProcessor",
    ]

    def read(content: bytes) -> None:
        (tmp_path / "preprocessor_config.json").write_bytes(content)
        preprocess = Preprocessor.from_checkpoint(tmp_path)
        assert preprocess.height > 0
        preprocess.save(tmp_path)
        assert Preprocessor.from_checkpoint(tmp_path) == preprocess

    make = any_file(
        [dumped(one) for one in PROCESSORS[:2]], (), documents(PROCESSORS, None, values)
    )
    fuzz("preprocessor_config.json", make, read)
