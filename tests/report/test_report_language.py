"""Counts over captions, and when they tell of a collapse."""

from __future__ import annotations

import pytest

from captionkit.report.language import language_of
from captionkit.report.run import Prediction


def said(captions, references=None):
    references = references or [()] * len(captions)
    return [
        Prediction(i, str(i), caption, tuple(refs), None, None, {})
        for i, (caption, refs) in enumerate(zip(captions, references, strict=True))
    ]


def test_counts_what_is_said_and_what_is_not():
    language = language_of(
        said(
            ["A dog runs.", "a dog runs", "a cat"],
            [("a dog sits", "the dog"), ("one bird sits",), ("a cat sits",)],
        )
    )
    assert (language.images, language.distinct) == (3, 2)
    assert language.distinct_share == pytest.approx(200 / 3)
    assert language.vocabulary == len({"a", "dog", "runs", "cat"})
    assert language.reference_vocabulary == len({"a", "dog", "sits", "the", "one", "bird", "cat"})
    assert language.mean_length == pytest.approx(8 / 3)
    assert language.repeated == [("a dog runs", 2)]
    assert language.never_said == [("sits", 3)]
    assert dict(language.unsupported) == {"runs": 2, "dog": 1}


def test_no_references_no_claims_about_them():
    language = language_of(said(["a dog", "a cat"]))
    assert language.mean_reference_length is None
    assert language.unsupported == []
    assert language.never_said == []
    assert language_of([]) is None


DIFFERENT = [(f"scene {i}",) for i in range(40)]


@pytest.mark.parametrize(
    ("captions", "references", "warns"),
    [
        (["a photo"] * 40, DIFFERENT, True),
        (["a photo"] * 21 + [f"scene {i}" for i in range(19)], DIFFERENT, True),
        (["a photo"] * 15 + [f"scene {i}" for i in range(25)], DIFFERENT, False),
        (["one", "two", "three", "four"] * 10, DIFFERENT, True),
        (["a photo"] * 40, [()] * 40, True),
        (["cat", "dog"] * 20, [("cat",), ("dog",)] * 20, False),  # a label is all there is to say
        ([f"scene {i}" for i in range(40)], DIFFERENT, False),
        (["a photo"] * 7, DIFFERENT[:7], False),  # too few to tell
    ],
)
def test_a_collapse_is_told_from_a_small_world(captions, references, warns):
    assert bool(language_of(said(captions, references)).warning) == warns
