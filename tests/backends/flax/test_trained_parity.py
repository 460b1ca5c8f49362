"""Captions of a model that was trained on critters, against torch's generate, beam for beam."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402 (after the skip)
from transformers import GenerationConfig, VisionEncoderDecoderModel  # noqa: E402

import captionkit  # noqa: E402
from captionkit.backends.flax.captioner import load_captioner  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder: four epochs of the quickstart, after which it writes sentences."""
    folder = tmp_path_factory.mktemp("critters") / "ved"
    captionkit.finetune(
        "quickstart-ved", backend="torch", device="cpu", output_dir=str(folder), epochs=4,
        eval_steps=0, max_eval_samples=8, warmup_steps=10,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("num_beams", [1, 2, 4, 8])
def test_captions_are_those_of_torch(trained, num_beams):
    captioner = load_captioner(trained, "cpu")
    data = captionkit.load_dataset("critters", split="validation", max_eval_samples=8)
    images = [data[i].image for i in range(len(data))]
    pixels = torch.tensor(np.stack([captioner.preprocess(image) for image in images]))
    pixels = (pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    model = VisionEncoderDecoderModel.from_pretrained(trained).eval()
    start, ends, pad = captioner.family.token_ids(captioner.config)
    tokens = {"decoder_start_token_id": start, "eos_token_id": list(ends), "pad_token_id": pad}
    for length, penalty in ((30, 2.0), (12, 0.0)):
        settings = {"num_beams": num_beams, "max_new_tokens": length}
        if num_beams > 1:
            settings["length_penalty"] = penalty
        config = GenerationConfig(**settings, **tokens, do_sample=False)
        expected = captioner.tokenizer.batch_decode(
            model.generate(pixel_values=pixels, generation_config=config), skip_special_tokens=True
        )
        ours = [caption.text for caption in captioner.caption(images, **settings)]
        assert len(set(ours)) > 1
        assert ours == [text.strip() for text in expected]
