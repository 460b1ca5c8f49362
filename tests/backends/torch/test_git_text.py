"""GIT's image tokens computed once an image, against transformers' own class."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM  # noqa: E402 (after the skip)

from captionkit.backends.torch.captioner import normalised  # noqa: E402
from captionkit.backends.torch.families import git  # noqa: E402


@pytest.fixture(scope="module")
def model(git_folder):
    return AutoModelForCausalLM.from_pretrained(git_folder).eval()


@pytest.fixture(scope="module")
def pixel_values(captioner, pairs):
    pixels = captioner.encode([image for image, _ in pairs[:5]]).pixels
    return normalised(pixels, captioner.preprocess)


@pytest.fixture(scope="module")
def encoded(model, pixel_values):
    with torch.inference_mode():
        return git.encode(model, pixel_values)


def test_image_tokens_have_the_keys_and_values_of_a_whole_forward_pass(
    model, pixel_values, encoded
):
    seen = {}

    def note(layer, name):
        def hook(module, args, output):
            seen[layer, name] = output

        return getattr(model.git.encoder.layer[layer].attention.self, name).register_forward_hook(
            hook
        )

    hooks = [note(layer, name) for layer in range(2) for name in ("key", "value")]
    with torch.no_grad():
        model(pixel_values=pixel_values, input_ids=torch.full((5, 3), 7))
    for hook in hooks:
        hook.remove()
    assert encoded.shape == (5, 2, 2, 2, 17, 16)
    for layer in range(2):
        for number, name in enumerate(("key", "value")):
            expected = seen[layer, name][:, :17].reshape(5, 17, 2, 16).transpose(1, 2)
            torch.testing.assert_close(encoded[:, layer, number], expected, atol=1e-5, rtol=0)
    # five images are more than are encoded at once, and none depends on another
    with torch.inference_mode():
        alone = git.encode(model, pixel_values[3:4])
    torch.testing.assert_close(encoded[3:4], alone, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_logits_of_several_captions_an_image_with_padding(model, pixel_values, encoded):
    ids = torch.tensor([[2, 5, 6, 7], [2, 8, 0, 0], [2, 4, 9, 0], [2, 2, 2, 2]] * 5)[:15]
    mask = (ids != 0).long()
    rows = torch.arange(5).repeat_interleave(3)
    expected = git.logits(model, pixel_values[rows], ids, mask)
    for images in (encoded, encoded[rows]):  # shared by three rows, or one a row
        found = git.logits(model, pixel_values, ids, mask, images)
        assert found.shape == (15, 4, model.config.vocab_size)
        torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("decoding", [
    {}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
    {"do_sample": True, "num_return_sequences": 3, "top_k": 0, "temperature": 1.5},
])  # fmt: skip
@pytest.mark.parametrize("prefix", [None, [2, 5, 9]])
@torch.inference_mode()
def test_generated_ids_are_those_of_plain_generate(model, pixel_values, encoded, decoding, prefix):
    settings = {"max_new_tokens": 10, "do_sample": False, **decoding}
    given = None if prefix is None else torch.tensor([prefix] * 5)
    torch.manual_seed(1)
    expected = model.generate(
        pixel_values=pixel_values, **({} if given is None else {"input_ids": given}), **settings
    )
    torch.manual_seed(1)
    assert torch.equal(git.generate(model, pixel_values, encoded, given, **settings), expected)


def test_the_image_is_encoded_once_and_the_last_layer_computes_text_only(captioner, pairs):
    images, lengths = [image for image, _ in pairs[:4]], []
    model = captioner.model
    hooks = [
        model.git.image_encoder.register_forward_hook(
            lambda module, args, output: lengths.append("image")
        ),
        model.git.encoder.layer[-1].output.register_forward_hook(
            lambda module, args, output: lengths.append(output.shape[1])
        ),
    ]
    try:
        encoded = captioner.encode(images)
        assert lengths == ["image"]
        captioner.caption(encoded, max_new_tokens=1, num_beams=3)
        assert lengths == ["image", 1, 1]  # the second scores the caption that was found
        captioner.loss(encoded, [["one", "two words", "three"]] * 4)
        assert "image" not in lengths[1:]
        assert max(lengths[1:]) < 17  # the image has 17 tokens
    finally:
        for hook in hooks:
            hook.remove()


def test_nothing_holds_on_to_the_images_of_a_batch(model, pixel_values):
    import gc
    import weakref

    with torch.no_grad():
        images = git.encode(model, pixel_values)
        git.generate(model, pixel_values, images, max_new_tokens=2, do_sample=False)
    gone = weakref.ref(images)
    del images
    gc.collect()
    assert gone() is None
