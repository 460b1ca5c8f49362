"""Decoding beside captioning, and captions that do not depend on their batch."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conftest import draw, spoken
from fake_captioner import FakeCaptioner, say
from PIL import Image

from captionkit.bulk.pipeline import caption_items
from captionkit.bulk.sources import find_images
from captionkit.data.images import open_image
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ImageError


@pytest.fixture
def many(tmp_path):
    for number in range(23):
        draw(tmp_path / "many" / f"{number:02}.png", number)
    for number in (3, 4, 11):
        (tmp_path / "many" / f"{number:02}.png").write_bytes(b"broken")
    return tmp_path / "many"


def outcomes(captioner, folder, batch_size, seed=0, workers=None, **decoding):
    items = find_images([str(folder)])
    batches = list(caption_items(captioner, items, batch_size, decoding, seed, workers))
    return [
        (item.name, str(found) if isinstance(found, ImageError) else [c.text for c in found])
        for batch in batches
        for item, found in batch
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 100])
def test_captions_do_not_depend_on_batch_size_threads_or_order(many, batch_size):
    captioner = FakeCaptioner()
    found = outcomes(captioner, many, batch_size, workers=1 + batch_size % 4)
    assert [name for name, _ in found] == [f"{i:02}.png" for i in range(23)]
    for name, captions in found:
        if name in ("03.png", "04.png", "11.png"):
            assert captions == "it is not an image, or of a kind that Pillow cannot read"
        else:
            assert captions == [spoken(many / name)]
    # broken images leave no holes: every batch but the last is full
    assert set(captioner.batches[:-1]) <= {batch_size}
    assert sum(captioner.batches) == 20


@pytest.mark.parametrize("own", ["square", "shortest edge", "larger than its crop", "none"])
def test_preprocessing_ahead_gives_the_pixels_that_the_captioner_would_make(tmp_path, own):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(noise).save(tmp_path / "in" / "a.png")
    settings = ("X", 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)
    preprocess = {
        "square": Preprocessor.square(16),
        "shortest edge": Preprocessor(settings[0], 16, (16, 16), *settings[1:]),
        "larger than its crop": Preprocessor(settings[0], 24, (16, 16), *settings[1:]),
        "none": None,
    }[own]
    expected = (preprocess or Preprocessor.square(16))(open_image(tmp_path / "in" / "a.png"))
    found = outcomes(FakeCaptioner(preprocess=preprocess), tmp_path / "in", 4)
    assert found == [("a.png", [say(expected).text])]


def test_draws_depend_on_the_seed_and_the_image_alone(many):
    drawn = outcomes(FakeCaptioner(), many, 5, seed=1, do_sample=True)
    assert drawn == outcomes(FakeCaptioner(), many, 1, seed=1, do_sample=True)
    other = outcomes(FakeCaptioner(), many, 5, seed=2, do_sample=True)
    greedy = outcomes(FakeCaptioner(), many, 5)
    for a, b, c in zip(drawn, other, greedy):
        assert isinstance(a[1], str) or len({a[1][0], b[1][0], c[1][0]}) == 3
    (many / "00.png").rename(many / "99.png")
    assert outcomes(FakeCaptioner(), many, 5, seed=1, do_sample=True)[-1][1] == drawn[0][1]


def test_a_checkpoint_that_samples_by_default_is_seeded_too(many):
    captioner = FakeCaptioner()
    captioner.defaults = {"do_sample": True}
    seen = []
    captioner.caption = lambda images, seeds, **_: seen.extend(seeds) or [say(i) for i in images]
    list(caption_items(captioner, find_images([str(many / "00.png")]), 4, {}))
    assert len(seen) == 1


def test_alternatives_come_in_groups(many):
    found = outcomes(FakeCaptioner(), many, 4, num_return_sequences=3)
    assert found[0][1] == [spoken(many / "00.png", rank=rank) for rank in range(3)]


def test_an_image_that_the_model_refuses_does_not_take_its_batch_along(many):
    captioner = FakeCaptioner()
    caption = captioner.caption

    def refusing(images, **settings):
        if any(np.asarray(image)[0, 0, 0] == refused for image in images):
            raise ImageError("too narrow")
        return caption(images, **settings)

    refused = np.asarray(Image.open(many / "06.png"))[0, 0, 0]
    others = [p for p in sorted(many.glob("*.png")) if p.name not in ("03.png", "04.png", "11.png")]
    alike = [p.name for p in others if np.asarray(Image.open(p))[0, 0, 0] == refused]
    captioner.caption = refusing
    found = dict(outcomes(captioner, many, 8))
    for path in others:
        expected = "too narrow" if path.name in alike else [spoken(path)]
        assert found[path.name] == expected


def test_the_next_images_are_decoded_while_the_model_works(many, monkeypatch):
    """The first batch is not done before an image of the second has been opened."""
    opened, later = [], threading.Event()

    def noted(source, **settings):
        opened.append(source)
        if len(opened) > 6:  # with batches of 3: one of the second batch and 3 broken ones
            later.set()
        return open_image(source, **settings)

    monkeypatch.setattr("captionkit.bulk.pipeline.open_image", noted)
    captioner = FakeCaptioner()
    caption = captioner.caption

    def waiting(images, **settings):
        assert later.wait(30), "nothing was decoded meanwhile"
        return caption(images, **settings)

    captioner.caption = waiting
    batches = caption_items(captioner, find_images([str(many)]), 3, {}, workers=1)
    next(batches)
    # and no further ahead than two batches: memory does not grow with the collection
    assert len(opened) <= 3 + 2 + 2 * 3 + 1
    batches.close()


def test_what_cannot_be_fetched_or_is_cut_off_is_said(tmp_path):
    missing = tmp_path / "missing.png"
    [[(_, error)]] = caption_items(FakeCaptioner(), find_images([str(missing)]), 2, {})
    assert str(error) == "there is no such file"
