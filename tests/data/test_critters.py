import dataclasses
import hashlib
import os
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from captionkit.data import critters
from captionkit.data.critters import (
    ATTRIBUTES,
    Critter,
    attributes,
    captions,
    draw,
    names_every_attribute,
)
from captionkit.errors import ConfigError
from captionkit.recipe import DataConfig

CONFIG = DataConfig(dataset="critters")


def changed(critter: Critter) -> list[Critter]:
    """Every critter that differs in one attribute, and the one with its two colours swapped."""
    others = [
        dataclasses.replace(critter, **{name: value})
        for name, values in ATTRIBUTES.items()
        for value in values
        if value != getattr(critter, name)
        and not (name == "colour" and value == critter.belly)
        and not (name == "belly" and value == critter.colour)
    ]
    swapped = dataclasses.replace(critter, colour=critter.belly, belly=critter.colour)
    return [*others, swapped]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path))
    return tmp_path


# Attributes


def test_the_critters_are_the_same_everywhere_and_all_different():
    all_of_them = attributes()
    assert len(all_of_them) == len(set(all_of_them)) == 833
    text = "\n".join(" ".join(dataclasses.astuple(critter)) for critter in all_of_them)
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "3678153cdb92ffd150a990172dbe7b2e3c8bcadcf36cebb4ba37d701fa10754d"
    )
    assert attributes(10) == all_of_them[:10]
    assert attributes(10, seed=1) != all_of_them[:10]


def test_every_value_is_seen_often_enough_to_be_learned():
    for name, values in ATTRIBUTES.items():
        seen = Counter(getattr(critter, name) for critter in attributes())
        assert set(seen) == set(values)
        assert min(seen.values()) > 0.8 * 833 / len(values)


def test_no_word_stands_for_two_things():
    words = [value for name, values in ATTRIBUTES.items() if name != "belly" for value in values]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("count", [-1, 38_881])
def test_more_critters_than_there_are_is_an_error(count):
    with pytest.raises(ConfigError, match=r"38,880"):
        attributes(count)


def test_every_possible_critter_can_be_had():
    small = {name: values[:2] for name, values in ATTRIBUTES.items()}
    possible = 2 * 2**6  # two colours make two pairs of different ones
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(critters, "ATTRIBUTES", small)
        assert len(set(attributes(possible))) == possible


def test_an_impossible_critter_is_an_error():
    critter = attributes(1)[0]
    with pytest.raises(ConfigError, match="one of round, pointy, long, floppy"):
        dataclasses.replace(critter, ears="square")
    with pytest.raises(ConfigError, match="must differ"):
        dataclasses.replace(critter, belly=critter.colour)


# Captions


def test_five_different_wordings_of_similar_length():
    for critter in attributes(100):
        wordings = captions(critter)
        assert len(set(wordings)) == 5
        assert all(15 <= len(wording.split()) <= 25 for wording in wordings)
        # different from the first words on, so that one that was begun can be ended
        assert len({tuple(wording.split()[:3]) for wording in wordings}) == 5


def test_a_caption_tells_its_critter_from_all_others():
    seen = {caption: critter for critter in attributes() for caption in captions(critter)}
    assert len(seen) == 5 * 833


def test_every_wording_names_every_attribute_and_only_of_its_critter():
    for critter in attributes(60):
        for caption in captions(critter):
            assert names_every_attribute(caption, critter)
            assert names_every_attribute(re.sub("[,.]", " ", caption).upper() + " !", critter)
            for other in changed(critter):
                assert not names_every_attribute(caption, other)


def test_words_of_the_wrong_part_are_wrong():
    critter = Critter("pink", "blue", "tall", "round", "big", "curly", "sitting", "meadow")
    right = (
        "a tall pink and blue thing with round ears big eyes and a curly tail sitting in a meadow"
    )
    assert names_every_attribute(right, critter)
    for wrong in (
        right.replace("pink and blue", "blue and pink"),
        right.replace("round ears big eyes", "big ears round eyes"),
        right.replace("round ears", "ears"),
        right + " with floppy ears",
        right.replace("tall", "tall chubby"),
        right.replace("meadow", "meadow at night"),
        "tall pink blue round big curly sitting meadow ears eyes tail and in a",
        "",
    ):
        assert not names_every_attribute(wrong, critter)


# Pictures


def test_equal_critters_are_drawn_alike_but_for_their_variation():
    critter = attributes(1)[0]
    first = draw(critter, variation=3)
    assert first.mode == "RGB"
    assert first.size == (96, 96)
    assert draw(critter, variation=3).tobytes() == first.tobytes()
    assert draw(critter, variation=4).tobytes() != first.tobytes()
    assert draw(critter, size=50).size == (50, 50)


def test_every_attribute_can_be_seen_at_64_pixels():
    def small(critter, variation):
        picture = draw(critter, variation=variation).resize((64, 64), Image.Resampling.BICUBIC)
        return np.asarray(picture, dtype=float)

    for index, critter in enumerate(attributes(20)):
        picture = small(critter, index)
        for other in changed(critter):
            difference = np.abs(small(other, index) - picture)
            assert difference.mean() > 1.0, other
            # clearly another colour over half a patch of 8 x 8, not a faint shade all over
            assert (difference.max(axis=2) > 64).sum() >= 32, other


# The data set


def test_train_and_validation_share_no_critter(cache):
    train, validation = (critters.load(CONFIG, split) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (750, 83)
    assert not set(train.image_ids) & set(validation.image_ids)
    assert not set(train.all_captions()) & set(validation.all_captions())
    assert critters.load(CONFIG, "test") is None


def test_images_and_captions_belong_together(cache):
    by_id = {f"critter-{index:03d}": critter for index, critter in enumerate(attributes())}
    validation = critters.load(CONFIG, "validation")
    for position in (0, 41, 82):
        example = validation[position]
        critter = by_id[example.image_id]
        assert example.captions == captions(critter)
        expected = draw(critter, variation=int(example.image_id[-3:]))
        np.testing.assert_array_equal(np.asarray(example.image), np.asarray(expected))


def test_critters_are_drawn_once_and_then_read(cache, monkeypatch):
    first = critters.load(CONFIG, "validation")
    (file,) = cache.iterdir()
    assert str(critters.VERSION) in file.name

    def not_again(*args, **kwargs):
        raise AssertionError("drawn again")

    monkeypatch.setattr(critters, "draw", not_again)
    again = critters.load(CONFIG, "validation")
    assert again.image_ids == first.image_ids
    assert again[5].source == first[5].source


def test_critters_need_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAPTIONKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert len(critters.load(CONFIG, "validation")) == 83
    assert os.listdir(tmp_path) == ["file"]
