"""Scores, probabilities of tokens and seeded draws, on both backends and against plain torch."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

import numpy as np
import torch
from PIL import Image
from transformers import (
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

import captionkit
from captionkit.data.captions import build_word_tokenizer
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ConfigError

START, ENDS, PAD = 2, [3, 9], 0
# each size that the Flax backend is tried with compiles anew; 9 tries all
SIZES = range(1, 1 + int(os.environ.get("CAPTIONKIT_BATCH_SIZES", "0"))) or (1, 4)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images():
    """Nine pictures, one colour over another."""
    draw = np.random.default_rng(1)
    pictures = []
    for _ in range(9):
        pixels = np.zeros((40, 48, 3), np.uint8)
        pixels[:20], pixels[20:] = draw.integers(0, 256, (2, 3))
        pictures.append(Image.fromarray(pixels))
    return pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with random weights, two end tokens and captions of many lengths."""
    words = "red green blue above below a some the picture of dark light".split()
    tokenizer = build_word_tokenizer([" ".join(words)])
    encoder = ViTConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=8, initializer_range=0.3,
    )  # fmt: skip
    decoder = GPT2Config(
        n_embd=24, n_layer=1, n_head=2, n_positions=16, vocab_size=len(tokenizer),
        bos_token_id=START, eos_token_id=ENDS[0], initializer_range=0.4,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = START, ENDS[0], PAD
    torch.manual_seed(3)
    model = VisionEncoderDecoderModel(config)
    model.decoder.transformer.wpe.weight.data *= 4  # so that no word is repeated on and on
    model.generation_config.eos_token_id = ENDS
    folder = tmp_path_factory.mktemp("confidence")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(32).save(folder)
    return folder


@pytest.fixture(scope="module")
def plain(folder):
    return VisionEncoderDecoderModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def captioners(folder):
    return {name: captionkit.load(folder, name, "cpu") for name in ("torch", "flax")}


@pytest.fixture(params=["torch", "flax"])
def captioner(request, captioners):
    return captioners[request.param]


@pytest.fixture
def rows(captioner, monkeypatch):
    """The token ids of the captions that were made last."""
    module, found = sys.modules[type(captioner).__module__], []
    decode = module.decode_captions

    def noted(tokenizer, ids, *arguments):
        found.extend(ids)
        return decode(tokenizer, ids, *arguments)

    monkeypatch.setattr(module, "decode_captions", noted)
    return found


@torch.no_grad()
def plain_log_probs(plain, image, ids):
    """`(len(ids), vocab)`: of each next token, by one pass over one caption, nothing padded."""
    pixels = torch.tensor(Preprocessor.square(32)(image)).permute(2, 0, 1)[None] / 127.5 - 1
    inputs = torch.tensor([[START, *ids[:-1]]])
    return plain(pixel_values=pixels, decoder_input_ids=inputs).logits[0].double().log_softmax(-1)


SETTINGS = {
    "greedy": {},
    "beams": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.5},
    "draws": {"do_sample": True, "num_return_sequences": 2, "temperature": 1.5, "top_p": 0.9},
    "seeds": {"do_sample": True, "num_return_sequences": 2, "top_k": 9, "seeds": range(4)},
    "drawn beams": {"do_sample": True, "num_beams": 3, "temperature": 1.3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_token_has_the_probability_that_teacher_forcing_gives(
    captioner, plain, images, rows, name
):
    torch.manual_seed(0)
    captions = captioner.caption(
        images[:4], max_new_tokens=7, token_probabilities=True, **SETTINGS[name]
    )
    per_image = SETTINGS[name].get("num_return_sequences", 1)
    assert len(captions) == len(rows) == 4 * per_image
    for i, (caption, ids) in enumerate(zip(captions, rows)):
        table = plain_log_probs(plain, images[i // per_image], ids)
        expected = table[range(len(ids)), ids]
        assert caption.score == pytest.approx(float(expected.mean()), abs=1e-4)
        pieces, probabilities = zip(*caption.token_probabilities)
        assert probabilities == pytest.approx(expected.exp().tolist(), abs=1e-4)
        assert "".join(pieces) == caption.text
        assert all(end not in ids[:-1] for end in ENDS)
        assert ids[-1] in ENDS or len(ids) == 7
        if ids[-1] == ENDS[0]:
            assert pieces[-1] == ""
    if name in ("beams", "draws", "seeds"):  # or little was tested
        assert len({len(ids) for ids in rows}) > 2
        assert {ids[-1] in ENDS for ids in rows} == {True, False}
    if "seeds" in SETTINGS[name]:
        scores = [caption.score for caption in captions]
        assert all(first >= second for first, second in zip(scores[::2], scores[1::2]))


@pytest.mark.parametrize("name", ["greedy", "beams"])
def test_both_backends_say_the_same(captioners, images, name):
    ours, theirs = [
        captioners[backend].caption(
            images[:4], max_new_tokens=7, token_probabilities=True, **SETTINGS[name]
        )
        for backend in ("torch", "flax")
    ]
    assert [c.text for c in ours] == [c.text for c in theirs]
    assert [c.score for c in ours] == pytest.approx([c.score for c in theirs], abs=1e-4)
    for a, b in zip(ours, theirs):
        assert [piece for piece, _ in a.token_probabilities] == [
            piece for piece, _ in b.token_probabilities
        ]
        assert [p for _, p in a.token_probabilities] == pytest.approx(
            [p for _, p in b.token_probabilities], abs=1e-4
        )


# ---- seeds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"num_return_sequences": 2, "top_k": 9}, {"num_beams": 3, "temperature": 1.3}]
)
def test_a_seed_gives_the_same_caption_in_any_company(captioner, images, settings):
    settings = {"do_sample": True, "max_new_tokens": 7, **settings}
    each = settings.get("num_return_sequences", 1)
    seeds = [5, 6, 7, 5]
    together = captioner.caption(images[:4], seeds=seeds, **settings)
    assert captioner.caption(captioner.encode(images[:4]), seeds=seeds, **settings) == together
    alone = [
        caption
        for image, seed in zip(images, seeds)
        for caption in captioner.caption(image, seeds=[seed], **settings)
    ]
    small = captioner.caption(images[:4], seeds=seeds, batch_size=3, **settings)
    backwards = captioner.caption(images[3::-1], seeds=seeds[::-1], **settings)
    backwards = [c for i in reversed(range(4)) for c in backwards[each * i : each * (i + 1)]]
    for others in (alone, small, backwards):
        assert [c.text for c in others] == [c.text for c in together]
        np.testing.assert_allclose(
            [c.score for c in others], [c.score for c in together], atol=1e-5
        )
    other = captioner.caption(images[:4], seeds=[8, 9, 10, 11], **settings)
    assert [c.text for c in other] != [c.text for c in together]


def test_seeds_leave_greedy_search_and_the_global_generator_alone(captioners, images):
    captioner = captioners["torch"]
    assert captioner.caption(images[:2], seeds=[1, 2]) == captioner.caption(images[:2])
    state = torch.get_rng_state()
    for num_beams in (1, 2):
        captioner.caption(images[:2], do_sample=True, seeds=[1, 2], num_beams=num_beams)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ConfigError, match="2 images and 3 seeds"):
        captioner.caption(images[:2], do_sample=True, seeds=[1, 2, 3])


def test_one_draw_more_does_not_change_the_others(captioner, images):
    settings = {"do_sample": True, "max_new_tokens": 7, "top_k": 9, "seeds": range(4)}
    one = captioner.caption(images[:4], **settings)
    two = captioner.caption(images[:4], num_return_sequences=2, **settings)
    for i, caption in enumerate(one):
        assert caption.text in [c.text for c in two[2 * i : 2 * i + 2]]


def test_seeded_draws_follow_the_filtered_distribution(captioner, plain, images, rows):
    """Frequencies of the first two tokens, within six standard deviations."""
    count, settings = 800, {"temperature": 0.8, "top_k": 6, "top_p": 0.95}
    captioner.caption(
        [images[0]] * count, do_sample=True, max_new_tokens=2, seeds=range(count),
        batch_size=count, **settings,
    )  # fmt: skip
    assert len(rows) == count

    def filtered(log_probs):
        logits = log_probs.numpy() / 0.8
        order = np.argsort(-logits)[:6]
        probs = np.exp(logits[order] - logits[order].max())
        probs /= probs.sum()
        kept = np.cumsum(probs) - probs < 0.95
        return dict(zip(order[kept].tolist(), (probs[kept] / probs[kept].sum()).tolist()))

    expected = {}
    for first, share in filtered(plain_log_probs(plain, images[0], [0])[0]).items():
        if first in ENDS:
            expected[(first,)] = share
            continue
        then = filtered(plain_log_probs(plain, images[0], [first, 0])[1])
        expected |= {(first, second): share * p for second, p in then.items()}
    assert sum(expected.values()) == pytest.approx(1)
    counts = Counter(tuple(row) for row in rows)
    assert counts.keys() <= expected.keys()
    for ids, share in expected.items():
        slack = 6 * (share * (1 - share) / count) ** 0.5 + 1 / count
        assert abs(counts[ids] / count - share) <= slack, ids


# ---- batches -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(folder, images, tmp_path_factory):
    """The same model after it learned a caption for each picture."""
    copy = tmp_path_factory.mktemp("trained") / "model"
    shutil.copytree(folder, copy)
    model = VisionEncoderDecoderModel.from_pretrained(folder)
    draw = np.random.default_rng(0)
    lengths = [3, 5, 8, 4, 6, 2, 7, 5, 3]
    labels = torch.full((9, 9), -100)
    for row, length in enumerate(lengths):
        labels[row, :length] = torch.tensor(draw.integers(10, 16, length))
        labels[row, length] = ENDS[0]
    preprocess = Preprocessor.square(32)
    pixels = torch.stack([torch.tensor(preprocess(image)).permute(2, 0, 1) for image in images])
    inputs = torch.cat([torch.full((9, 1), START), labels[:, :-1].clamp_min(0)], 1)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(120):
        logits = model(pixel_values=pixels / 127.5 - 1, decoder_input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    model.save_pretrained(copy)
    # the very same configuration, so that nothing compiles twice
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(folder / name, copy / name)
    return copy


@pytest.mark.parametrize("backend", ["torch", "flax"])
@pytest.mark.parametrize("weights", ["random", "trained"])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}])
def test_captions_do_not_depend_on_batch_size_or_order(
    captioners, trained, images, backend, weights, settings
):
    captioner = captioners[backend]
    if weights == "trained":
        captioner = captionkit.load(trained, backend, "cpu")
    settings = {"max_new_tokens": 10, **settings}
    expected = captioner.caption(images, batch_size=9, **settings)
    assert len({caption.text for caption in expected}) > 1
    for size in range(1, 10) if backend == "torch" else SIZES:
        order = np.random.default_rng(size).permutation(9).tolist()
        found = captioner.caption([images[i] for i in order], batch_size=size, **settings)
        assert [c.text for c in found] == [expected[i].text for i in order]
        np.testing.assert_allclose(
            [c.score for c in found], [expected[i].score for i in order], atol=1e-5
        )


# ---- what the two have in common ---------------------------------------------------------------


def test_both_know_their_checkpoint_and_the_same_facts(captioners, folder):
    ours, theirs = captioners["torch"], captioners["flax"]
    assert ours.checkpoint == theirs.checkpoint == folder
    assert ours.defaults == theirs.defaults
    assert ours.facts.keys() == theirs.facts.keys()
    assert (ours.facts["backend"], theirs.facts["backend"]) == ("torch", "flax")
    assert ours.facts["device"] == theirs.facts["device"] == "cpu"
    assert json.dumps(theirs.facts)
    # the pooler, of which no caption depends, is left out of one of them
    assert 0 <= ours.facts["parameters"] - theirs.facts["parameters"] <= 24 * 25


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"num_beam": 2}, {"seeds": [1]}, {"seeds": [0.5, 1]}, {"top_p": 0.0}],
)
def test_both_refuse_with_the_same_words(captioners, images, wrong):
    messages = []
    for captioner in captioners.values():
        with pytest.raises(ConfigError) as caught:
            captioner.caption(images[:2], **wrong)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
