"""Captions that begin with given words, against a search by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

import captionkit
from captionkit.backends.torch.captioner import normalised
from captionkit.backends.torch.generate import generate
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ConfigError
from captionkit.recipe import Decoding

START, END = 2, 3


@pytest.fixture(scope="module")
def ved_folder(tmp_path_factory, tokenizer):
    encoder = ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, initializer_range=0.2,
    )  # fmt: skip
    decoder = GPT2Config(
        n_embd=24, n_layer=2, n_head=2, n_positions=24, vocab_size=len(tokenizer),
        initializer_range=0.4, bos_token_id=START, eos_token_id=END,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = START, END, 0
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("ved")
    VisionEncoderDecoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(32).save(folder)
    return folder


@pytest.fixture(scope="module", params=["git", "vision-encoder-decoder"])
def talker(request, git_folder, ved_folder, pairs):
    """A captioner, and by transformers the log-probabilities after some tokens of an image."""
    is_git = request.param == "git"
    folder = git_folder if is_git else ved_folder
    kind = AutoModelForCausalLM if is_git else VisionEncoderDecoderModel
    model = kind.from_pretrained(folder).eval()
    captioner = captionkit.load(folder, backend="torch", device="cpu")
    images = [image for image, _ in pairs[:4]]
    pixels = normalised(captioner.encode(images).pixels, captioner.preprocess)

    @torch.no_grad()
    def log_probs(image, ids):
        name = "input_ids" if is_git else "decoder_input_ids"
        output = model(pixel_values=pixels[image][None], **{name: torch.tensor([ids])})
        return output.logits[0, -1].double().log_softmax(-1)

    return captioner, images, log_probs


def known_ids(captioner, prompt):
    return [START, *captioner.tokenizer(prompt, add_special_tokens=False)["input_ids"]]


def test_greedy_search_goes_on_from_the_prompt_and_is_scored_from_there(talker):
    captioner, images, log_probs = talker
    prompt = "blue below"
    plain = captioner.caption(images, max_new_tokens=6)
    captions = captioner.caption(images, prompt=f" {prompt} ", max_new_tokens=6)
    assert [c.text for c in captions] != [c.text for c in plain]
    for image, caption in enumerate(captions):
        ids, total = known_ids(captioner, prompt), []
        while len(total) < 6 and not (total and ids[-1] == END):
            scores = log_probs(image, ids)
            ids.append(int(scores.argmax()))
            total.append(float(scores.max()))
        assert caption.text == captioner.tokenizer.decode(ids, skip_special_tokens=True)
        assert caption.text.startswith(prompt)
        assert caption.score == pytest.approx(np.mean(total), abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2, "seeds": [1, 2, 3, 4]},
        {"do_sample": True, "num_beams": 2, "seeds": [1, 2, 3, 4]},
    ],
)
def test_every_search_goes_on_from_it_and_scores_only_what_comes_after(talker, settings):
    captioner, images, log_probs = talker
    settings = dict(settings)
    seeds = settings.pop("seeds", None)
    encoded, prefix = captioner.encode(images), known_ids(captioner, "green above")
    torch.manual_seed(0)
    with torch.no_grad():
        found = generate(
            captioner.family, captioner.model, captioner._pixel_values(encoded.pixels),
            encoded.hidden_states, Decoding(max_new_tokens=5, **settings), seeds, prefix,
        )  # fmt: skip
    share = settings.get("num_return_sequences", 1)
    assert len(found.ids) == 4 * share
    for i, (ids, scores) in enumerate(zip(found.ids, found.log_probs)):
        assert 1 <= len(ids) <= 5
        whole = prefix + ids
        steps = [
            float(log_probs(i // share, whole[:t])[whole[t]])
            for t in range(len(prefix), len(whole))
        ]
        assert scores == pytest.approx(steps, abs=1e-5)

    torch.manual_seed(0)
    captions = captioner.caption(
        encoded, prompt="green above", max_new_tokens=5, token_probabilities=True, seeds=seeds,
        **settings,
    )  # fmt: skip
    for caption, ids, scores in zip(captions, found.ids, found.log_probs):
        text = captioner.tokenizer.decode(prefix + ids, skip_special_tokens=True)
        pieces = "".join(piece for piece, _ in caption.token_probabilities)
        assert caption.text == text == f"green above{pieces}"
        assert caption.score == pytest.approx(np.mean(scores), abs=1e-6)
        assert len(caption.token_probabilities) == len(ids)


def test_an_evaluation_scores_captions_that_begin_with_it(talker, pairs):
    captioner, _, _ = talker
    result = captionkit.evaluate(
        captioner, pairs[:4], prompt="blue", metrics=["wer"], split="train", test_size=0
    )
    assert all(row.prediction.startswith("blue") for row in result.predictions)


def test_a_prompt_leaves_room_and_holds_words(talker):
    captioner, images, _ = talker
    # 24 positions: the start token's, and those of the words
    almost = " ".join(["blue"] * 23)
    caption = captioner.caption(images[0], prompt=almost, max_new_tokens=9)[0]
    assert len(captioner.tokenizer(caption.text, add_special_tokens=False)["input_ids"]) <= 24
    with pytest.raises(ConfigError, match="is 24 tokens long, and the model has positions for 24"):
        captioner.caption(images[0], prompt=f"{almost} blue")
    with pytest.raises(ConfigError, match=r"special token \[SEP\]"):
        captioner.caption(images[0], prompt="blue [SEP]")
    with pytest.raises(ConfigError, match="words that the model's tokenizer does not know"):
        captioner.caption(images[0], prompt="a zebra")
    assert captioner.caption(images, prompt="  ") == captioner.caption(images)
