"""The growing cache against the library's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from transformers import DynamicCache  # noqa: E402 (after the skip)

from captionkit.backends.torch.cache import growing_cache  # noqa: E402


def test_it_holds_what_a_dynamic_cache_holds():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = growing_cache(), DynamicCache()
    for step, added in enumerate([7, 1, 1, 40, 1, 1, 1, 1]):
        for layer in range(2):
            states = torch.randn(2, 4, 3, added, 5, generator=generator)
            found = ours.update(states[0], states[1], layer)
            expected = theirs.update(states[0], states[1], layer)
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])
        assert ours.get_seq_length() == theirs.get_seq_length()
        if step in (2, 5):
            order = torch.tensor([2, 0, 0, 1])
            ours.reorder_cache(order)
            theirs.reorder_cache(order)


@pytest.mark.parametrize("decoding", [{}, {"num_beams": 3}])
def test_captions_are_those_of_plain_generate(captioner, pairs, decoding):
    images = [image for image, _ in pairs]
    found = captioner.caption(images, max_new_tokens=12, **decoding)
    pixels = captioner._pixel_values(captioner.encode(images).pixels)
    ids = captioner.model.generate(
        pixel_values=pixels, max_new_tokens=12, do_sample=False, **decoding
    )
    texts = captioner.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert [caption.text for caption in found] == [text.strip() for text in texts]
