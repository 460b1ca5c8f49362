"""The Flax captioner against teacher forcing, one caption at a time."""

from __future__ import annotations

import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest

import captionkit.backends.flax.captioner as module
from captionkit.backends.flax.captioner import load_captioner, out_of_memory
from captionkit.backends.flax.generate import generate
from captionkit.backends.flax.model_folder import open_model
from captionkit.errors import CheckpointError, ConfigError, ImageError
from captionkit.types import Captioner


@pytest.fixture(scope="module")
def images(pairs):
    return [image for image, _ in pairs[:5]]


def teacher_forced(captioner, image, ids):
    """Log-probabilities of the ids, by one whole forward pass without padding or cache."""
    pixels = np.asarray(captioner.preprocess(image))[None] / 255
    pixels = (pixels - 0.5) / 0.5
    inputs = np.zeros((1, 24), np.int32)  # what follows the ids changes nothing before it
    inputs[0, : len(ids)] = [2, *ids[:-1]]
    apply = jax.jit(captioner.family.apply, static_argnums=0)
    logits = apply(captioner.graphdef, captioner.params, pixels, inputs, None)[0, : len(ids)]
    logits = np.asarray(logits, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log_probs[np.arange(len(ids)), ids]


def test_it_is_a_captioner(captioner):
    assert isinstance(captioner, Captioner)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 5}])
def test_scores_equal_teacher_forcing(captioner, images, settings, monkeypatch):
    found = []

    def recorded(*arguments):
        found.append(generate(*arguments))
        return found[-1]

    monkeypatch.setattr(module, "generate", recorded)
    captions = captioner.caption(images, max_new_tokens=9, **settings)
    assert len({caption.text for caption in captions}) > 1
    (ids, lengths, _), tokenizer = found[0], captioner.tokenizer
    for row, (caption, image) in enumerate(zip(captions, images, strict=True)):
        kept = np.asarray(ids)[row, 0, : int(lengths[row, 0])]
        assert caption.text == tokenizer.decode(kept, skip_special_tokens=True)
        expected = teacher_forced(captioner, image, kept).mean()
        assert caption.score == pytest.approx(expected, abs=1e-4)


def test_several_captions_an_image_come_best_first(captioner, images):
    settings = {"max_new_tokens": 6, "num_return_sequences": 3}
    for more in ({"num_beams": 4}, {"do_sample": True}):
        captions = captioner.caption(images, **settings, **more)
        assert len(captions) == 15
        for i in range(5):
            group = captions[3 * i : 3 * i + 3]
            assert len({caption.text for caption in group}) > 1
            if "do_sample" in more:
                assert [c.score for c in group] == sorted((c.score for c in group), reverse=True)


def test_sampling_goes_on_from_a_key(captioner, images):
    settings = {"do_sample": True, "max_new_tokens": 6}
    captioner.key = jax.random.key(3)
    first, second = (captioner.caption(images, **settings) for _ in range(2))
    assert first != second
    captioner.key = jax.random.key(3)
    assert captioner.caption(images, **settings) == first


def test_loss_equals_a_token_by_token_sum_over_all_references(captioner, images, pairs):
    references = [texts for _, texts in pairs[:5]]
    references[1] = references[1][0]  # one caption instead of a list
    total, count = captioner.loss(images, references)
    expected, tokens = 0.0, 0
    for image, texts in zip(images, references, strict=True):
        for text in [texts] if isinstance(texts, str) else texts:
            ids = captioner.tokenizer(text)["input_ids"][1:]  # the model starts from [CLS] itself
            expected -= teacher_forced(captioner, image, ids).sum()
            tokens += len(ids)
    assert count == tokens
    assert total == pytest.approx(expected, rel=1e-5)
    assert captioner.loss(captioner.encode(images), references) == (total, count)


def test_captions_do_not_depend_on_the_batch(captioner, images):
    together = captioner.caption(images, max_new_tokens=8)
    apart = [captioner.caption(image, max_new_tokens=8)[0] for image in images]
    small = captioner.caption(images, batch_size=2, max_new_tokens=8)
    encoded = captioner.encode(images)
    parts = captioner.caption(encoded, batch_size=2, max_new_tokens=8)
    for others in (apart, small, parts, captioner.caption(encoded, max_new_tokens=8)):
        assert [c.text for c in others] == [c.text for c in together]
        np.testing.assert_allclose(
            [c.score for c in others], [c.score for c in together], atol=1e-5
        )


def test_images_are_encoded_once(captioner, images, monkeypatch):
    encoded = captioner.encode(images)

    def never(*arguments):
        raise AssertionError("encoded again")

    monkeypatch.setattr(module, "_encoded", never)
    captioner.caption(encoded, max_new_tokens=4)
    captioner.loss(encoded, ["red above blue."] * 5)


def test_odd_batches_are_filled_up_instead_of_compiled(ved_folder, pairs):
    images = [image for image, _ in pairs[:11]]
    captioner = load_captioner(ved_folder, device="cpu")
    captioner.caption(images[:4], batch_size=4, max_new_tokens=3)
    before = module._encoded._cache_size()
    captioner.caption(images, batch_size=4, max_new_tokens=3)
    captioner.caption(images[:3], max_new_tokens=3)
    captioner.caption(images[:1], max_new_tokens=3)
    assert module._encoded._cache_size() == before


def test_every_form_of_an_image_is_taken(captioner, images, tmp_path):
    image = images[0]
    path = tmp_path / "a.png"
    image.save(path)
    expected = captioner.caption(image, max_new_tokens=4)
    for form in (path, str(path), path.read_bytes(), np.asarray(image), np.asarray(image)[None]):
        assert captioner.caption(form, max_new_tokens=4) == expected
    assert captioner.caption([]) == []
    assert captioner.caption(captioner.encode([image]), max_new_tokens=4) == expected


def no_room_for_more_than(room, function, at, sizes):
    """`function` on a device that holds so many rows of its argument number `at`."""

    def tight(*arguments):
        sizes.append(len(arguments[at]))
        if sizes[-1] > room:
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 20000000 bytes."
            )
        return function(*arguments)

    return tight


def test_a_batch_that_does_not_fit_is_halved(ved_folder, images, pairs, monkeypatch):
    captioner, sizes = load_captioner(ved_folder, "cpu"), []
    texts = [captions for _, captions in pairs[:5]]
    expected = captioner.caption(images, max_new_tokens=4), captioner.loss(images, texts)
    captioner = load_captioner(ved_folder, "cpu")
    for name, at in (("_encoded", 5), ("generate", 3), ("_loss", 5)):
        tight = no_room_for_more_than(2, getattr(module, name), at, sizes)
        monkeypatch.setattr(module, name, tight)
    with pytest.warns(UserWarning, match=r"images at once do not fit the memory of cpu") as warned:
        found = captioner.caption(images, max_new_tokens=4), captioner.loss(images, texts)
    assert len(warned) == 1
    assert [c.text for c in found[0]] == [c.text for c in expected[0]]
    assert found[1] == pytest.approx(expected[1], rel=1e-6)
    sizes.clear()
    assert captioner.caption(images, max_new_tokens=4) == found[0]  # nor a second warning
    assert max(sizes) <= 2


def test_one_image_that_does_not_fit_is_an_error_of_ours(ved_folder, images, monkeypatch):
    captioner = load_captioner(ved_folder, "cpu")
    tight = no_room_for_more_than(0, generate, 3, [])
    monkeypatch.setattr(module, "generate", tight)
    with pytest.raises(ConfigError, match=r"one image at a time.*num_beams.*device='cpu'"):
        captioner.caption(images)


def test_an_error_of_jax_itself_is_recognised():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jax.block_until_ready(jax.numpy.zeros(2**60, jax.numpy.uint8))
    assert out_of_memory(caught.value)
    assert not out_of_memory(ValueError("RESOURCE_EXHAUSTED"))


def test_wrong_input_is_explained(captioner, images, tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        captioner.caption(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match="Cannot caption 'int'"):
        captioner.caption(3)
    with pytest.raises(ConfigError, match="did you mean 'num_beams'"):
        captioner.caption([], num_beam=3)
    with pytest.raises(ConfigError, match="temperature=0"):
        captioner.caption([], temperature=0.0)
    for texts in (["red above blue."], ["red above blue."] * 3):
        with pytest.raises(ConfigError, match=f"2 images and captions for {len(texts)}"):
            captioner.loss(images[:2], texts)


def test_captions_end_where_the_models_positions_end(captioner, images):
    limit = captioner.config.decoder.n_positions
    captions = captioner.caption(images, max_new_tokens=10 * limit)
    assert captions == captioner.caption(images, max_new_tokens=limit)


def test_the_checkpoints_own_decoding_is_the_default(ved_folder, tmp_path, images):
    folder = tmp_path / "own"
    shutil.copytree(ved_folder, folder)
    generation = {"max_length": 4, "num_beams": 2, "eos_token_id": 3, "top_k": 50}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    captioner = load_captioner(folder, device="cpu")
    assert captioner.defaults == {"max_new_tokens": 3, "num_beams": 2}
    assert captioner.caption(images) == captioner.caption(images, max_new_tokens=3, num_beams=2)
    # transformers 4 kept it in the model's config
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["decoder"] |= {"num_beams": 3, "length_penalty": 1.5}
    (folder / "config.json").write_text(json.dumps(config | {"max_length": 9}))
    assert load_captioner(folder).defaults == {
        "max_new_tokens": 8, "num_beams": 3, "length_penalty": 1.5,
    }  # fmt: skip


def test_precision_and_device_are_checked(ved_folder, images):
    half = load_captioner(ved_folder, "cpu", "bf16")
    assert str(half.encode(images).states.dtype) == "bfloat16"
    assert len(half.caption(images, max_new_tokens=4)) == 5
    with pytest.raises(ConfigError, match="dtype='fp8'"):
        load_captioner(ved_folder, "cpu", "fp8")
    with pytest.raises(ConfigError, match=r"fp16.*needs a GPU"):
        load_captioner(ved_folder, "cpu", "fp16")
    with pytest.raises(ConfigError, match=r"device='quantum'.*JAX sees cpu:0"):
        load_captioner(ved_folder, "quantum")
    with pytest.raises(ConfigError, match="device='cpu:99'"):
        load_captioner(ved_folder, "cpu:99")


def test_an_image_processor_of_another_size_is_an_error(ved_folder, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(ved_folder, folder)
    file = folder / "preprocessor_config.json"
    file.write_text(file.read_text().replace("32", "48"))
    for opened in (load_captioner, partial(open_model, seed=0)):
        with pytest.raises(CheckpointError, match=r"images of 48 x 48.*takes 32 x 32"):
            opened(folder)
