"""The arguments of `caption`, as every backend checks them."""

from __future__ import annotations

import numpy as np
import pytest

from captionkit.caption_arguments import caption_lists, check_arguments, check_seeds, draw_seed
from captionkit.errors import ConfigError
from captionkit.recipe import Decoding


def test_what_is_given_goes_before_the_checkpoint_before_the_library():
    settings = check_arguments({"num_beams": 3, "max_new_tokens": 9}, {"max_new_tokens": 5}, 4)
    assert settings == Decoding(num_beams=3, max_new_tokens=5)


@pytest.mark.parametrize(
    ("decoding", "batch_size", "message"),
    [
        ({"num_beam": 3}, 1, "did you mean 'num_beams'"),
        ({"seed": [1]}, 1, "did you mean 'seeds'"),
        ({"token_probability": True}, 1, "did you mean 'token_probabilities'"),
        ({"temperature": 0.0}, 1, "temperature=0.0"),
        ({}, 0, r"batch_size=0 is not possible.*at least 1"),
        ({}, 2.5, "batch_size=2.5"),
        ({}, "4", "batch_size='4'"),
        ({}, True, "batch_size=True"),
    ],
)
def test_what_is_not_possible_is_explained(decoding, batch_size, message):
    with pytest.raises(ConfigError, match=message):
        check_arguments({}, decoding, batch_size)


def test_seeds_are_integers_one_an_image():
    assert check_seeds(None, 3) is None
    assert check_seeds(np.array([4, 5]), 2) == [4, 5]
    assert check_seeds(range(3), 3) == [0, 1, 2]
    assert check_seeds([-1, 2**80], 2) == [-1, 2**80]
    with pytest.raises(ConfigError, match="3 images and 2 seeds"):
        check_seeds([1, 2], 3)
    for wrong in (7, [0.5, 1.0], [None]):
        with pytest.raises(ConfigError, match="a list of integers"):
            check_seeds(wrong, 1)


def test_captions_are_listed_with_the_number_of_their_image():
    assert caption_lists(["a", ["b", "c"], (), ("d",)], 4) == (["a", "b", "c", "d"], [0, 1, 1, 3])
    for images in (0, 2):
        with pytest.raises(ConfigError, match=f"{images} images and captions for 1: give one"):
            caption_lists(["a"], images)


def test_draws_of_neighbouring_seeds_and_lanes_have_nothing_in_common():
    drawn = [draw_seed(seed, lane) for seed in range(-50, 200) for lane in range(20)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= bits < 2**64 for bits in drawn)
    # each of the 64 bits is set in about half of them: 6 standard deviations
    counts = np.array([[bits >> i & 1 for i in range(64)] for bits in drawn]).sum(0)
    assert (np.abs(counts - len(drawn) / 2) < 3 * len(drawn) ** 0.5).all()
