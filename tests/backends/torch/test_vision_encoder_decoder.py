"""The vision-encoder-decoder adapter against transformers' own model, used the slow way."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

import captionkit
from captionkit.backends.torch.captioner import normalised
from captionkit.backends.torch.families import vision_encoder_decoder as ved
from captionkit.backends.torch.weights import load_model
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError, ConfigError

ENCODER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8, "initializer_range": 0.2,
}  # fmt: skip
SMALL = {
    "device": "cpu", "batch_size": 4, "learning_rate": 2e-3, "eval_batch_size": 8,
    "test_size": 0.25, "metrics": ["wer"], "max_new_tokens": 10, "logging_steps": 1,
    "precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module", params=["cls-sep", "gpt2-like"])
def folder(request, tmp_path_factory, tokenizer, gpt2_like_tokenizer):
    """ViT + GPT-2 of unequal widths, as `save_pretrained` writes it."""
    if request.param == "gpt2-like":
        tokenizer, start, end, pad = gpt2_like_tokenizer, 0, 0, 0
    else:
        start, end, pad = 2, 3, 0
    decoder = GPT2Config(
        n_embd=24, n_layer=2, n_head=2, n_positions=24, vocab_size=len(tokenizer),
        initializer_range=0.4, bos_token_id=start, eos_token_id=end,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**ENCODER), decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = start, end, pad
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("tiny-ved")
    VisionEncoderDecoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(32).save(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(folder):
    return captionkit.load(folder, backend="torch", device="cpu")


@pytest.fixture(scope="module")
def model(folder):
    return VisionEncoderDecoderModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def images(pairs):
    return [image for image, _ in pairs[:5]]


@pytest.fixture(scope="module")
def pixel_values(captioner, images):
    return normalised(captioner.encode(images).pixels, captioner.preprocess)


@torch.no_grad()
def next_log_probs(model, pixels, ids):
    """One whole forward pass for one sequence, from the pixels on, no cache, no padding."""
    logits = model(pixel_values=pixels[None], decoder_input_ids=torch.tensor([ids])).logits[0, -1]
    return logits.double().log_softmax(-1)


def whole(captioner, text):
    """What the decoder reads and gives, in one list: start, words, end."""
    config = captioner.model.config
    words = captioner.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [config.decoder_start_token_id, *words, config.eos_token_id]


def run(folder, pairs, output_dir, **settings):
    return captionkit.finetune(
        model=str(folder), dataset=pairs, output_dir=str(output_dir), backend="torch",
        **{**SMALL, **settings},
    )  # fmt: skip


def test_greedy_captions_and_scores_equal_a_brute_force_search(
    captioner, model, images, pixel_values
):
    captions = captioner.caption(images, max_new_tokens=8)
    assert len({caption.text for caption in captions}) > 1  # the image has a say
    for caption, pixels in zip(captions, pixel_values):
        ids, total = [model.config.decoder_start_token_id], 0.0
        while len(ids) < 9 and (len(ids) == 1 or ids[-1] != model.config.eos_token_id):
            log_probs = next_log_probs(model, pixels, ids)
            ids.append(int(log_probs.argmax()))
            total += float(log_probs.max())
        assert caption.text == captioner.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert caption.score == pytest.approx(total / (len(ids) - 1), abs=1e-5)


@pytest.mark.parametrize(("num_beams", "length_penalty"), [(2, 1.0), (4, 2.0)])
def test_beam_search_is_that_of_generate_and_its_score_is_recomputed(
    captioner, model, images, pixel_values, num_beams, length_penalty
):
    settings = {"num_beams": num_beams, "length_penalty": length_penalty, "max_new_tokens": 8}
    captions = captioner.caption(images, **settings)
    expected = model.generate(pixel_values=pixel_values, do_sample=False, **settings)
    end = model.config.eos_token_id
    for caption, ids, pixels in zip(captions, expected.tolist(), pixel_values):
        assert caption.text == captioner.tokenizer.decode(ids, skip_special_tokens=True).strip()
        length = ids.index(end, 1) + 1 if end in ids[1:] else len(ids)
        steps = [next_log_probs(model, pixels, ids[:t])[ids[t]].item() for t in range(1, length)]
        assert caption.score == pytest.approx(np.mean(steps), abs=1e-5)


def test_loss_equals_a_token_by_token_sum_over_all_references(
    captioner, model, images, pixel_values, pairs
):
    references = [[text.replace(".", "") for text in texts] for _, texts in pairs[:5]]
    total, count = captioner.loss(images, references)
    expected, tokens = 0.0, 0
    for pixels, texts in zip(pixel_values, references):
        for ids in (whole(captioner, text) for text in texts):
            for t in range(1, len(ids)):
                expected -= next_log_probs(model, pixels, ids[:t])[ids[t]].item()
                tokens += 1
    assert count == tokens
    assert total == pytest.approx(expected, rel=1e-5)


def test_the_encoder_runs_once_an_image(captioner, images, pairs):
    seen = []
    hook = captioner.model.encoder.register_forward_hook(
        lambda module, inputs, output: seen.append(len(output.last_hidden_state))
    )
    try:
        encoded = captioner.encode(images)
        captions = captioner.caption(encoded, num_beams=3)
        loss = captioner.loss(encoded, [texts for _, texts in pairs[:5]])
    finally:
        hook.remove()
    assert seen == [5]
    assert captions == captioner.caption(images, num_beams=3)
    assert loss == captioner.loss(images, [texts for _, texts in pairs[:5]])


@pytest.mark.skipif(
    transformers.__version__.startswith("4."), reason="transformers 4 shifts labels otherwise"
)
def test_the_first_loss_of_training_is_that_of_transformers(folder, captioner, pairs, tmp_path):
    """VisionEncoderDecoderModel shifts labels itself; the mean is over the batch's tokens."""
    pairs = [(image, texts[0].replace(".", "")) for image, texts in pairs]
    result = run(folder, pairs, tmp_path / "run", max_steps=1, test_size=0, batch_size=16)
    labels = [whole(captioner, text)[1:] for _, text in pairs]
    length = max(map(len, labels))
    labels = torch.tensor([ids + [-100] * (length - len(ids)) for ids in labels])
    pixels = captioner.encode([image for image, _ in pairs]).pixels
    with torch.no_grad():
        expected = VisionEncoderDecoderModel.from_pretrained(folder)(
            pixel_values=normalised(pixels, captioner.preprocess), labels=labels
        ).loss
    assert result.history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_frozen_tensors_are_named_as_in_the_file(folder, pairs, tmp_path):
    pattern = "encoder.encoder.layer.*.attention.attention.query.*"
    result = run(folder, pairs, tmp_path / "run", max_steps=2, freeze=[pattern], weight_decay=0.1)
    before = load_file(folder / "model.safetensors")
    after = load_file(result.output_dir / "model.safetensors")
    assert before.keys() == after.keys()
    unmoved = {name for name in before if torch.equal(before[name], after[name])}
    pooler = {name for name in before if name.startswith("encoder.pooler.")}
    frozen = {name for name in before if ".attention.attention.query." in name}
    assert len(frozen) == 4
    # attention does not depend on what is added to every key: the gradient of its bias is noise
    key_biases = {name for name in before if name.endswith("key.bias")}
    assert unmoved - key_biases == pooler | frozen
    info = json.loads((result.output_dir / "captionkit/run.json").read_text())
    assert info["parameters"] - info["trainable"] == sum(
        before[name].numel() for name in pooler | frozen
    )
    with pytest.raises(ConfigError, match=r"matches no tensor. Names look like: encoder\."):
        run(folder, pairs, tmp_path / "b", max_steps=2, freeze=["encoder.layers.*"])


def test_a_run_from_a_config_learns_and_brings_its_tokenizer(folder, pairs, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["decoder"]["vocab_size"] = 7  # what it should be is known from the captions only
    (tmp_path / "own.json").write_text(json.dumps(config))
    result = run(
        tmp_path / "own.json", pairs, tmp_path / "run", epochs=60, test_size=0, batch_size=16,
        learning_rate=5e-3, captions="first", save_steps=0, logging_steps=50,
    )  # fmt: skip
    captions = result.captioner.caption([image for image, _ in pairs])
    assert [c.text for c in captions] == [texts[0] for _, texts in pairs]
    written = VisionEncoderDecoderConfig.from_pretrained(result.output_dir)
    assert written.decoder.vocab_size == len(result.captioner.tokenizer)
    assert (written.decoder_start_token_id, written.eos_token_id, written.pad_token_id) == (2, 3, 0)


def test_a_pooler_is_not_needed(folder, images, captioner, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if "pooler" not in name}
    assert len(kept) == len(tensors) - 2
    save_file(kept, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    assert captionkit.load(tmp_path / "m", backend="torch", device="cpu").caption(images) == (
        captioner.caption(images)
    )
    kept.pop("enc_to_dec_proj.bias")
    save_file(kept, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing from the file: enc_to_dec_proj\.bias\n"):
        captionkit.load(tmp_path / "m", backend="torch", device="cpu")


def test_a_decoder_that_cannot_see_the_image_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["decoder"]["add_cross_attention"] = False
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"gpt2\) has no cross-attention"):
        captionkit.load(tmp_path / "m", backend="torch")


def test_a_checkpoint_without_a_start_token_is_explained(folder, tmp_path, images):
    shutil.copytree(folder, tmp_path / "m")
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        for key in ("decoder_start_token_id", "bos_token_id"):
            config.pop(key, None)
        (tmp_path / "m" / name).write_text(json.dumps(config))
    captioner = captionkit.load(tmp_path / "m", backend="torch", device="cpu")
    with pytest.raises(CheckpointError, match="has a decoder_start_token_id"):
        captioner.loss(images[:1], ["red above blue"])


def test_a_bert_decoder_works_as_well(tokenizer, pairs, tmp_path):
    decoder = BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=len(tokenizer), max_position_embeddings=20, initializer_range=0.3,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**ENCODER), decoder)
    ved.set_token_ids(config, tokenizer)
    torch.manual_seed(0)
    VisionEncoderDecoderModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    Preprocessor.square(32).save(tmp_path)
    assert ved.text_limit(load_model(tmp_path).config) == 20
    captioner = captionkit.load(tmp_path, backend="torch", device="cpu")
    image = pairs[0][0]
    model = VisionEncoderDecoderModel.from_pretrained(tmp_path).eval()
    pixel_values = normalised(captioner.encode([image]).pixels, captioner.preprocess)
    expected = model.generate(pixel_values, max_new_tokens=6)
    text = captioner.tokenizer.decode(expected[0], skip_special_tokens=True)
    assert captioner.caption(image, max_new_tokens=6)[0].text == text


def test_an_image_processor_of_another_size_is_an_error(folder, pairs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    file = other / "preprocessor_config.json"
    file.write_text(file.read_text().replace("32", "48"))
    with pytest.raises(CheckpointError, match=r"images of 48 x 48.*takes 32 x 32"):
        captionkit.load(other, backend="torch", device="cpu")
    with pytest.raises(CheckpointError, match=r"images of 48 x 48.*takes 32 x 32"):
        captionkit.finetune(
            model=str(other), dataset=pairs, output_dir=str(tmp_path / "run"), backend="torch",
            **{**SMALL, "max_steps": 1},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "size"),
    [("vit", (32, 32)), ("deit", (32, 32)), ("clip_vision_model", (32, 32)),
     ("siglip_vision_model", (32, 32)), ("dinov2", None), ("swin", None), ("beit", None)],
)  # fmt: skip
def test_which_encoders_take_images_of_one_size(kind, size):
    """As transformers' own classes do: the others refuse what is not of it, or fail."""
    shape = {**ENCODER, "num_hidden_layers": 1}
    if kind == "swin":
        shape = {"image_size": 32, "patch_size": 4, "window_size": 4,
                 "embed_dim": 8, "depths": [1], "num_heads": [2]}  # fmt: skip
    small = AutoConfig.for_model(kind, **shape)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(small, GPT2Config())
    assert ved.image_size(config) == size
    encoder = AutoModel.from_config(small).eval()
    encoder(torch.zeros(1, 3, 32, 32))
    if size is None:
        encoder(torch.zeros(1, 3, 48, 48))
    else:
        with pytest.raises((ValueError, RuntimeError)):
            encoder(torch.zeros(1, 3, 48, 48))
