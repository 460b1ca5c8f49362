import random

import pytest

from captionkit.collapse import collapse_warning

COLOURS = ["red", "blue", "green", "pink", "brown", "white"]
EARS = ["round", "pointed", "long", "floppy", "small"]


def critters(count, seed=0):
    """References of images that differ in three attributes."""
    rng = random.Random(seed)
    references = []
    for _ in range(count):
        colour, other, ears = rng.choice(COLOURS), rng.choice(COLOURS), rng.choice(EARS)
        references.append(
            (
                f"a drawing of a {colour} and {other} creature with {ears} ears",
                f"a {colour} creature with {ears} ears, {other} below",
            )
        )
    return references


@pytest.mark.parametrize("count", [8, 100])
def test_nearly_the_same_caption_for_all(count):
    captions = ["a man riding a wave"] * count
    message = f"{count} of {count} captions are the same: 'a man riding a wave'"
    assert message in collapse_warning(captions)
    captions[0] = "a dog" if count > 8 else captions[0]
    assert "Likely causes: " in collapse_warning(captions)


def test_captions_that_differ_enough():
    assert collapse_warning(["a man"] * 80 + [f"a dog {i}" for i in range(20)]) is None
    assert collapse_warning(["a man"] * 7) is None  # too few to tell


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [30, 84, 1500])
def test_captions_of_other_images(count, seed):
    references = critters(count, seed)
    own = [captions[0] for captions in references]
    assert collapse_warning(own, references) is None
    of_others = [captions[0] for captions in critters(count, seed + 100)]
    message = collapse_warning(of_others, references)
    assert "fit their own images no better than they fit other images" in message
    assert "Likely causes: " in message
    assert collapse_warning(of_others) is None  # nothing to tell it from


def test_a_weak_model_is_not_a_blind_one():
    references, others = critters(100), critters(100, seed=1)
    captions = [(a if i % 3 == 0 else b)[1] for i, (a, b) in enumerate(zip(references, others))]
    assert collapse_warning(captions, references) is None


def test_images_that_are_all_alike_prove_nothing():
    references = [("a red creature", "it is red")] * 40
    captions = [f"a red creature {i}" for i in range(40)]
    assert collapse_warning(captions, references) is None


def test_empty_captions():
    assert "40 of 40 captions are the same: ''" in collapse_warning([""] * 40, critters(40))
