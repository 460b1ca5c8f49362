"""BLIP's adapter against BLIP itself, used the slow way."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch.nn import functional
from transformers import BlipConfig, BlipForConditionalGeneration

import captionkit
from captionkit.backends.torch.captioner import normalised
from captionkit.backends.torch.families import blip
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError

START, END = 38, 3  # [DEC], which the tokenizer does not know, and [SEP]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """As `save_pretrained` writes it: with an end token that is not the one used."""
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "initializer_range": 0.2,
    }  # fmt: skip
    text = {
        "vocab_size": 40, "hidden_size": 24, "encoder_hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 24,
        "initializer_range": 0.4, "bos_token_id": START, "sep_token_id": END, "eos_token_id": 7,
        "pad_token_id": 0, "label_smoothing": 0.1,
    }  # fmt: skip
    config = BlipConfig(text_config=text, vision_config=vision)
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("tiny-blip")
    BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_processor_type": "BlipImageProcessor", "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def captioner(folder):
    return captionkit.load(folder, backend="torch", device="cpu")


@pytest.fixture(scope="module")
def model(folder):
    return BlipForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def images(pairs):
    return [image for image, _ in pairs[:5]]


@pytest.fixture(scope="module")
def pixel_values(captioner, images):
    return normalised(captioner.encode(images).pixels, captioner.preprocess)


@torch.no_grad()
def next_log_probs(model, pixels, ids):
    """One whole forward pass for one sequence, from the pixels on, no cache, no padding."""
    logits = model(pixel_values=pixels[None], input_ids=torch.tensor([ids])).logits[0, -1]
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("prompt", ["", "red above"])
def test_captions_are_those_of_blips_own_generate(captioner, model, images, pixel_values, prompt):
    """Which drops the last token of a prompt, [SEP], and puts [DEC] in place of the first."""
    words = captioner.tokenizer(prompt)["input_ids"] if prompt else [2, END]
    ids = torch.tensor([words] * len(images))
    expected = model.generate(pixel_values, ids, max_new_tokens=6, do_sample=False)
    captions = captioner.caption(images, prompt=prompt, max_new_tokens=6)
    texts = captioner.tokenizer.batch_decode(expected[:, 1:], skip_special_tokens=True)
    assert [caption.text for caption in captions] == [text.strip() for text in texts]
    assert len(set(texts)) > 1
    assert all(text.startswith(prompt) for text in texts)


@pytest.mark.parametrize("prompt", ["", "red above"])
def test_greedy_scores_are_of_the_generated_tokens(captioner, model, images, pixel_values, prompt):
    known = [START, *captioner.tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    captions = captioner.caption(images, prompt=prompt, max_new_tokens=6)
    for caption, pixels in zip(captions, pixel_values):
        ids, total = list(known), 0.0
        while len(ids) < len(known) + 6 and (len(ids) == len(known) or ids[-1] != END):
            log_probs = next_log_probs(model, pixels, ids)
            ids.append(int(log_probs.argmax()))
            total += float(log_probs.max())
        assert caption.score == pytest.approx(total / (len(ids) - len(known)), abs=1e-5)


def test_loss_is_the_plain_one_after_the_start_token(captioner, model, images, pixel_values, pairs):
    """transformers' own is smoothed by a tenth, and a mean."""
    texts = [texts[0] for _, texts in pairs[:5]]
    expected, count = 0.0, 0
    for text, pixels in zip(texts, pixel_values):
        words = captioner.tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = torch.tensor([[START, *words, END]])
        with torch.no_grad():
            output = model(pixel_values=pixels[None], input_ids=whole, labels=whole)
        expected += functional.cross_entropy(output.logits[0, :-1], whole[0, 1:]).item() * (
            whole.shape[1] - 1
        )
        count += whole.shape[1] - 1
        smoothed = functional.cross_entropy(
            output.logits[0, :-1], whole[0, 1:], label_smoothing=0.1
        )
        assert output.loss.item() == pytest.approx(smoothed.item(), rel=1e-5)
    assert captioner.loss(images, texts) == (pytest.approx(expected, rel=1e-5), count)


def test_the_encoder_runs_once_an_image(captioner, images, pairs):
    seen = []
    hook = captioner.model.vision_model.register_forward_hook(
        lambda module, inputs, output: seen.append(len(output.last_hidden_state))
    )
    try:
        encoded = captioner.encode(images)
        beams = captioner.caption(encoded, num_beams=3)
        captioner.loss(encoded, [texts for _, texts in pairs[:5]])
    finally:
        hook.remove()
    assert seen == [5]
    assert beams == captioner.caption(images, num_beams=3)


def test_training_memorises_and_transformers_reads_the_result(folder, pairs, tmp_path):
    some = [(image, texts[0]) for image, texts in pairs[:4]]
    result = captionkit.finetune(
        model=str(folder), dataset=some, output_dir=str(tmp_path / "run"), backend="torch",
        device="cpu", precision="fp32", test_size=0, batch_size=4, max_steps=120, warmup_steps=5,
        learning_rate=3e-3, save_steps=0, logging_steps=60, max_new_tokens=10,
    )  # fmt: skip
    captions = result.captioner.caption([image for image, _ in some])
    assert [caption.text for caption in captions] == [text for _, text in some]
    model, info = BlipForConditionalGeneration.from_pretrained(
        result.output_dir, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    pixels = normalised(result.captioner.encode([some[0][0]]).pixels, result.captioner.preprocess)
    ids = model.eval().generate(pixels, max_new_tokens=10)[:, 1:]
    text = result.captioner.tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text.strip() == some[0][1]


def test_a_model_from_a_config_gets_its_tokens_from_the_captions(folder, pairs, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "own.json").write_text(json.dumps(config))
    result = captionkit.finetune(
        model=str(tmp_path / "own.json"), dataset=pairs, output_dir=str(tmp_path / "run"),
        backend="torch", device="cpu", test_size=0, batch_size=16, max_steps=1, save_steps=0,
    )  # fmt: skip
    text = BlipConfig.from_pretrained(result.output_dir).text_config
    assert text.vocab_size == len(result.captioner.tokenizer)
    assert (text.bos_token_id, text.sep_token_id, text.pad_token_id) == (2, 3, 0)
    assert blip.start_id(result.captioner.model) == 2


def test_pictures_are_384_pixels_wide_where_nothing_else_is_said(tmp_path):
    settings = {"image_processor_type": "BlipImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    preprocess = Preprocessor.from_checkpoint(tmp_path)
    assert (preprocess.height, preprocess.width) == (384, 384)


def test_heads_of_other_tasks_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BlipForQuestionAnswering"]
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="BlipForQuestionAnswering, which gives no captions"):
        captionkit.load(tmp_path / "m", backend="torch")
