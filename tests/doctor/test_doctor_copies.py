"""Copies and leakage, against brute force over all pairs."""

from __future__ import annotations

import itertools
import random

from captionkit.doctor.copies import _near, find_copies
from captionkit.doctor.images import ImageFacts
from captionkit.doctor.listing import Entry, Listing


def copies(*rows, ids_are_paths=False):
    """rows: (split, id, captions, file, pixels). Returns names by kind."""
    listing = Listing("x", ids_are_paths=ids_are_paths)
    facts = []
    for split, image_id, captions, file, pixels in rows:
        listing.entries.append(Entry(split, image_id, tuple(captions), ""))
        facts.append(ImageFacts([], file_hash=file, pixel_hash=pixels))
    found = find_copies(listing, facts, [row[1] for row in rows])
    return {kind: [item.names for item in items] for kind, items in found.items() if items}


def test_the_same_file_and_the_same_picture_in_one_split():
    assert copies(
        ("train", "a", ["1"], b"x", b"p"), ("train", "b", ["2"], b"x", b"p"),
        ("train", "c", ["3"], b"y", b"p"), ("train", "d", ["4"], b"z", b"q"),
        ("train", "e", ["5"], b"u", b"q"), ("train", "f", ["6"], b"v", b"r"),
    ) == {"same_bytes": [("a", "b")], "same_pixels": [("a", "b", "c"), ("d", "e")]}  # fmt: skip


def test_copies_in_two_splits_are_leakage_and_no_mere_copies():
    assert copies(
        ("train", "a", ["1"], b"x", b"p"), ("validation", "b", ["2"], b"x", b"p"),
    ) == {"leak_image": [("a", "b")]}  # fmt: skip
    # re-encoded
    assert copies(
        ("train", "a", ["1"], b"x", b"p"), ("test", "b", ["2"], b"y", b"p"),
    ) == {"leak_image": [("a", "b")]}  # fmt: skip
    # damaged in the same way
    assert copies(
        ("train", "a", ["1"], b"x", None), ("test", "b", ["2"], b"x", None),
    ) == {"leak_image": [("a", "b")]}  # fmt: skip
    # both at once
    assert copies(
        ("train", "a", ["1"], b"x", b"p"), ("train", "b", ["2"], b"x", b"p"),
        ("validation", "c", ["3"], b"x", b"p"),
    ) == {"leak_image": [("a", "b", "c")], "same_bytes": [("a", "b")]}  # fmt: skip


def test_images_that_cannot_be_read_are_copies_of_nothing():
    assert copies(("train", "a", ["1"], None, None), ("test", "b", ["2"], None, None)) == {}


def test_ids_in_two_splits():
    rows = [("train", "7", ["1"], b"x", b"p"), ("validation", "7", ["2"], b"y", b"q")]
    assert copies(*rows) == {"leak_id": [("7", "7")]}
    # train/7.jpg and validation/7.jpg are two files
    assert copies(*rows, ids_are_paths=True) == {}
    same = [("train", "7", ["1"], b"x", b"p"), ("validation", "7", ["2"], b"x", b"p")]
    assert copies(*same) == {"leak_image": [("7", "7")]}


def test_equal_sets_of_captions_in_two_splits():
    found = copies(
        ("train", "a", ["one dog", "Two dogs"], b"1", b"1"),
        ("validation", "b", ["two  dogs", "One dog"], b"2", b"2"),
        ("validation", "c", ["one dog"], b"3", b"3"),
        ("train", "d", [], b"4", b"4"), ("validation", "e", [], b"5", b"5"),
    )  # fmt: skip
    assert found == {"leak_captions": [("a", "b")]}


def test_near_duplicates_equal_brute_force():
    draw = random.Random(0)
    for _ in range(20):
        looks = [draw.getrandbits(64) for _ in range(30)]
        for _ in range(40):  # neighbours at 1 to 5 bits
            look = draw.choice(looks)
            for bit in draw.sample(range(64), draw.randint(0, 5)):
                look ^= 1 << bit
            looks.append(look)
        looks.insert(3, None)
        links = {i: {i} for i in range(len(looks))}
        for a, b in itertools.combinations(range(len(looks)), 2):
            both = looks[a], looks[b]
            if None not in both and (both[0] ^ both[1]).bit_count() <= 3:
                joined = links[a] | links[b]
                for i in joined:
                    links[i] = joined
        wanted = {tuple(sorted(group)) for group in links.values() if len(group) > 1}
        assert {tuple(sorted(group)) for group in _near(looks)} == wanted
    assert _near([]) == []
    assert _near([None, 5]) == []
