"""Captions: what is found in their text, against examples and Python's own codecs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.doctor.captions import check_captions, folded, looks_misread, shortened
from captionkit.doctor.listing import Entry

GOOD = [
    "a dog on a mat", "ein Bär frißt Äpfel", "un café très élégant à Orléans", "São João, não!",
    "犬がマットの上に座っている", "собака сидит", "كلب", "naïve Façade — “quoted” …",
    "50 % off ½ €", "Ångström Ø", "a 👍🏽 thumbs up", "ÉÉÉ", "ÄÖÜ äöü ß",
]  # fmt: skip


def check(*captions, max_words=100):
    """Cases of one image's captions for each argument, which may be a list."""
    entries = [
        Entry("train", str(i), tuple([c] if isinstance(c, str) else c), "")
        for i, c in enumerate(captions)
    ]
    names = [f"image {i}" for i in range(len(entries))]
    found = check_captions(entries, names, max_words)
    return {kind: [(item.names, item.detail) for item in items] for kind, items in found.items()}


@pytest.mark.parametrize("text", GOOD)
def test_misread_text_is_found_and_shown_as_it_should_be(text):
    assert looks_misread(text) is None
    assert "encoding_damage" not in check(text)
    for codec in ("cp1252", "latin-1"):
        try:
            misread = text.encode("utf-8").decode(codec)
        except UnicodeDecodeError:
            continue  # bytes that the code page lacks
        if not text.isascii():
            assert looks_misread(misread) == text
            ((names, detail),) = check(misread)["encoding_damage"]
            assert names == ("image 0",)
            assert detail.startswith("perhaps ")


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_ascii_is_never_misread(text):
    assert looks_misread(text) is None


@given(st.text(st.characters(min_codepoint=0x100, max_codepoint=0x2FF), min_size=1))
def test_letters_beyond_the_code_page_are_found_when_misread_as_latin_1(text):
    assert looks_misread(text.encode("utf-8").decode("latin-1")) == text


def test_damaged_characters():
    found = check("a b\ufffdr", "a\x00b", "a\x1bb", "\udc80x", "tab\tand\nline", "fine")
    assert [(n[0], d) for n, d in found["encoding_damage"]] == [
        ("image 0", "a replacement character: a b\ufffdr"),
        ("image 1", "the character U+0000: a\\x00b"),
        ("image 2", "the character U+001B: a\\x1bb"),
        ("image 3", "the character U+DC80: \\x80x"),
    ]


def test_missing_empty_and_repeated_captions():
    found = check([], [""], ["a dog", " \t"], ["A  dog.", "a dog."], ["a dog.", "a cat."])
    assert [names for names, _ in found["no_caption"]] == [("image 0",)]
    assert [names for names, _ in found["empty_caption"]] == [("image 1",), ("image 2",)]
    assert found["repeated_caption"] == [(("image 3",), "a dog.")]


def test_long_captions_are_counted_in_words():
    ten = " ".join(["word"] * 10)
    assert "long_caption" not in check(ten, max_words=10)
    assert check(ten, max_words=9)["long_caption"][0][1].startswith("10 words: word word")


def test_one_caption_on_several_images():
    texts = ["a dog", "A dog ", "a cat", *(f"thing {i}" for i in range(9))]
    found = check(*texts)
    assert found == {"shared_caption": [(("image 0", "image 1"), "on 2 images: a dog")]}
    # twice on one image counts once
    assert "shared_caption" not in check(["a dog", "a dog"], "a cat")


def test_one_caption_on_most_images_is_a_finding_of_its_own():
    assert "constant_captions" in check(*["a picture"] * 6, *(f"thing {i}" for i in range(5)))
    assert "constant_captions" not in check(*["a picture"] * 5, *(f"thing {i}" for i in range(5)))
    # of a handful of images nothing can be said
    assert "constant_captions" not in check(*["a picture"] * 4)


def test_captions_are_shown_on_one_line():
    assert shortened("a\n\n b") == "a b"
    assert shortened("x" * 120) == "x" * 120
    assert shortened("x" * 121) == "x" * 119 + "…"
    assert shortened("\x1b[31mred") == "\\x1b[31mred"
    assert folded("  Cafe\u0301 ON\tthe  mat ") == "café on the mat"
