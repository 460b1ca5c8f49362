"""The word-level alignment, against jiwer."""

from __future__ import annotations

import itertools

import jiwer
from hypothesis import given
from hypothesis import strategies as st

from captionkit.report.words import align, words

sentences = st.lists(st.sampled_from(["a", "b", "c", "red", "dog"]), min_size=1, max_size=8).map(
    " ".join
)


def edits(caption: str, reference: str) -> int:
    out = jiwer.process_words(reference, caption)
    return out.substitutions + out.deletions + out.insertions


def flatten(pieces):
    """(word, whether it differs), word by word."""
    return [(word, piece.differs) for piece in pieces for word in piece.text.split()]


@given(sentences, st.lists(sentences, min_size=1, max_size=4))
def test_marks_an_optimal_alignment_with_the_nearest_reference(caption, references):
    aligned = align(caption, references)
    distances = [edits(caption, reference) for reference in references]
    assert aligned.index == distances.index(min(distances))
    own, theirs = flatten(aligned.caption), flatten(aligned.reference)
    assert [word for word, _ in own] == caption.split()
    assert [word for word, _ in theirs] == references[aligned.index].split()
    assert [w for w, differs in own if not differs] == [w for w, d in theirs if not d]
    # between two matches, the cheapest way from one stretch of words to the other
    gaps = itertools.zip_longest(stretches(own), stretches(theirs))
    assert sum(max(a, b) for a, b in gaps) == min(distances)


def stretches(marked):
    """How many differing words stand before each match, and after the last."""
    counts = [0]
    for _, differs in marked:
        if differs:
            counts[-1] += 1
        else:
            counts.append(0)
    return counts


def test_case_and_punctuation_do_not_differ():
    aligned = align("A dog , on the mat!", ["a Dog on the mat."])
    assert not any(piece.differs for piece in (*aligned.caption, *aligned.reference))
    assert aligned.reference[0].text == "a Dog on the mat."


def test_empty_texts_align():
    assert align("", ["a dog"]).reference[0].differs
    assert align("a dog", [""]).caption[0].differs
    assert align("a dog", []) is None


def test_endless_texts_are_shown_without_marks():
    aligned = align("word " * 5000, ["other " * 5000])
    assert [piece.differs for piece in aligned.caption] == [False]


def test_words_drop_what_is_not_a_letter():
    assert words("A well-known “dog”, ...  2 cats_!") == ["a", "wellknown", "dog", "2", "cats"]
