"""The torch captioner where memory runs out, and with settings of the checkpoint's own."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import captionkit  # noqa: E402 (after the skip)
from captionkit.backends.torch.captioner import out_of_memory  # noqa: E402
from captionkit.backends.torch.families import git  # noqa: E402
from captionkit.errors import ConfigError  # noqa: E402


@pytest.fixture
def images(pairs):
    return [image for image, _ in pairs[:7]]


@pytest.fixture
def captioner(git_folder):
    return captionkit.load(git_folder, device="cpu")


def no_room_for_more_than(room, function, sizes):
    """`function` on a device that holds so many images."""

    def tight(model, pixel_values, *arguments, **settings):
        sizes.append(len(pixel_values))
        if len(pixel_values) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return function(model, pixel_values, *arguments, **settings)

    return tight


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"do_sample": True, "seeds": range(7)}])
def test_a_batch_that_does_not_fit_is_halved(captioner, images, monkeypatch, settings):
    expected = captioner.caption(images, max_new_tokens=6, **settings)
    sizes = []
    for name in ("encode", "generate", "logits"):
        monkeypatch.setattr(git, name, no_room_for_more_than(2, getattr(git, name), sizes))
    with pytest.warns(UserWarning, match=r"images at once do not fit the memory of cpu") as warned:
        found = captioner.caption(images, max_new_tokens=6, **settings)
    assert len(warned) == 1
    assert [c.text for c in found] == [c.text for c in expected]
    np.testing.assert_allclose([c.score for c in found], [c.score for c in expected], atol=1e-5)
    sizes.clear()
    again = captioner.caption(images, max_new_tokens=6, **settings)  # nor a second warning
    assert [c.text for c in again] == [c.text for c in expected]
    assert max(sizes) <= 2


def test_the_loss_is_halved_as_well(captioner, images, pairs, monkeypatch):
    captions = [texts for _, texts in pairs[:7]]
    expected = captioner.loss(images, captions)
    monkeypatch.setattr(git, "logits", no_room_for_more_than(3, git.logits, []))
    with pytest.warns(UserWarning, match="going on with 3"):
        total, count = captioner.loss(images, captions)
    assert count == expected[1]
    assert total == pytest.approx(expected[0], rel=1e-6)


def test_one_image_that_does_not_fit_is_an_error_of_ours(captioner, images, monkeypatch):
    monkeypatch.setattr(git, "generate", no_room_for_more_than(0, git.generate, []))
    with pytest.raises(ConfigError, match=r"one image at a time.*num_beams.*device='cpu'"):
        captioner.caption(images)


def test_errors_of_torch_itself_are_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not out_of_memory(caught.value)
    assert not out_of_memory(ValueError("out of memory"))


def test_the_scores_are_the_models_own_whatever_its_generation_config_says(
    git_folder, tmp_path, images
):
    expected = captionkit.load(git_folder, device="cpu").caption(images, max_new_tokens=6)
    folder = tmp_path / "own"
    shutil.copytree(git_folder, folder)
    file = folder / "generation_config.json"
    generation = json.loads(file.read_text()) | {"repetition_penalty": 9.0, "min_length": 6}
    file.write_text(json.dumps(generation))
    with pytest.warns(UserWarning, match=r"repetition_penalty=9\.0, min_length=6.*not apply"):
        captioner = captionkit.load(folder, device="cpu")
    assert captioner.caption(images, max_new_tokens=6) == expected
    assert captioner.model.generation_config.repetition_penalty == 9.0  # to be saved again
