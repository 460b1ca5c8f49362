import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captionkit.data.dataset import CaptionDataset
from captionkit.data.order import caption_index, permutation, visits

MASK = 2**64 - 1


def made(captions_per_image: list[int]) -> CaptionDataset:
    return CaptionDataset.from_pairs(
        [(f"{i}.jpg", [f"{i}/{c}" for c in range(n)]) for i, n in enumerate(captions_per_image)],
        "made",
    )


def splitmix64(state: int, count: int) -> list[int]:
    """As published, with Python's own integers."""
    out = []
    for _ in range(count):
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
        state = (state + 0x9E3779B97F4A7C15) & MASK
    return out


def test_the_reference_is_splitmix64():
    # the generator's published outputs for the seed 1234567; it steps before it mixes
    first = (1234567 + 0x9E3779B97F4A7C15) & MASK
    assert splitmix64(first, 3) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (42, 3), (2**40, 1000)])
def test_the_order_is_that_of_the_reference(seed, epoch):
    digest = hashlib.blake2b(f"order/{seed}/{epoch}".encode(), digest_size=8).digest()
    keys = splitmix64(int.from_bytes(digest, "big"), 500)
    expected = sorted(range(500), key=keys.__getitem__)
    order = permutation(500, seed, epoch)
    assert order.dtype == np.int64
    assert order.tolist() == expected


@given(st.integers(0, 300), st.integers(0, 2**63), st.integers(0, 10**6))
@settings(deadline=None)
def test_a_permutation_holds_every_number_once(count, seed, epoch):
    assert sorted(permutation(count, seed, epoch).tolist()) == list(range(count))


def test_every_order_is_equally_probable():
    # 24 orders of 4, 4800 draws over seeds and epochs: chi-squared with 23 degrees of freedom
    seen = Counter(
        tuple(permutation(4, seed, epoch).tolist()) for seed in range(60) for epoch in range(80)
    )
    assert len(seen) == 24
    assert sum((n - 200) ** 2 / 200 for n in seen.values()) < 49.7  # p = 0.001


def test_captions_are_drawn_evenly():
    # over epochs for one image, over images in one epoch, over seeds
    for draws in (
        [caption_index(0, epoch, "an image", 5) for epoch in range(5000)],
        [caption_index(0, 0, f"{i}", 5) for i in range(5000)],
        [caption_index(seed, 0, "an image", 5) for seed in range(5000)],
    ):
        counts = np.bincount(draws, minlength=5)
        assert ((counts - 1000) ** 2 / 1000).sum() < 18.5  # p = 0.001, 4 degrees of freedom
    # the next epoch's draw does not depend on this one's
    pairs = Counter((caption_index(0, 0, f"{i}", 2), caption_index(0, 1, f"{i}", 2))
                    for i in range(4000))  # fmt: skip
    assert sum((n - 1000) ** 2 / 1000 for n in pairs.values()) < 16.3  # 3 degrees


def test_draws_never_change():
    # as they were when this was written: a resumed run must go on as it began
    assert [caption_index(42, epoch, "id", 5) for epoch in range(8)] == [0, 1, 0, 2, 2, 1, 1, 3]
    assert permutation(8, 42, 0).tolist() == [6, 7, 5, 1, 4, 2, 0, 3]


def test_random_visits_each_image_once_with_its_drawn_caption():
    dataset = made([3, 1, 5, 2, 4])
    pairs = visits(dataset, "random", seed=7, epoch=2)
    assert pairs.dtype == np.int64
    assert pairs[:, 0].tolist() == permutation(5, 7, 2).tolist()
    for image, caption in pairs.tolist():
        example = dataset[image]
        assert caption == caption_index(7, 2, example.image_id, len(example.captions))


def test_a_draw_does_not_depend_on_the_place_in_the_dataset():
    dataset = made([5] * 20)
    part = dataset.select(range(19, 4, -1))
    drawn = {dataset[i].image_id: c for i, c in visits(dataset, "random", 1, 1).tolist()}
    for image, caption in visits(part, "random", 1, 1).tolist():
        assert drawn[part[image].image_id] == caption


def test_first_visits_each_image_once():
    pairs = visits(made([3, 1, 5]), "first", seed=0, epoch=0)
    assert sorted(pairs.tolist()) == [[0, 0], [1, 0], [2, 0]]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_all_visits_each_caption_once(counts, epoch):
    pairs = visits(made(counts), "all", seed=0, epoch=epoch)
    expected = [[i, c] for i, n in enumerate(counts) for c in range(n)]
    assert sorted(pairs.tolist()) == expected
    order = permutation(len(expected), 0, epoch)
    assert pairs.tolist() == [expected[i] for i in order]


def test_epochs_and_seeds_differ():
    dataset = made([5] * 30)
    for mode in ("random", "first", "all"):
        orders = [visits(dataset, mode, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
        assert len({order.tobytes() for order in orders}) == 4
