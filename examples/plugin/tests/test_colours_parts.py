"""The dataset source and the metric by their registered names, which are listed at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from captionkit_colours.dataset import captions, flags

import captionkit
from captionkit.errors import DataError


def test_they_are_listed_by_the_command_line():
    for command, name in (
        ("backends", "colours"), ("datasets", "flags"), ("metrics", "colour_recall"),
    ):  # fmt: skip
        code = (
            f"import sys; from captionkit.cli import main; main([{command!r}])\n"
            "assert not {'transformers', 'datasets', 'pyarrow'} & set(sys.modules)"
        )
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        line = next(line for line in output.splitlines() if line.startswith(name))
        if command == "backends":
            assert line.split() == ["colours", "ready"]
        else:
            assert "captionkit-colours" in line


def test_flags_are_split_and_none_is_on_both_sides():
    train = captionkit.load_dataset("flags", split="train")
    held_out = captionkit.load_dataset("flags", split="validation")
    assert (len(train), len(held_out)) == (150, 30)
    assert sorted([*train.image_ids, *held_out.image_ids]) == sorted(map("-".join, flags()))
    with pytest.raises(DataError, match="test"):
        captionkit.load_dataset("flags", split="test")


def test_a_flag_looks_as_its_caption_says():
    for example in captionkit.load_dataset("flags", split="validation"):
        bands = example.image_id.split("-")
        assert example.captions == captions(tuple(bands))
        height = example.image.height // len(bands)
        for number, colour in enumerate(bands):
            red, green, blue = example.image.getpixel((0, number * height))
            assert {
                "red": red > 150 > 100 > green, "green": green > 120 > red,
                "blue": blue > 150 > 100 > red, "yellow": red > 200 and green > 200 > blue,
                "white": min(red, green, blue) > 200, "black": max(red, green, blue) < 50,
            }[colour], (bands, number)  # fmt: skip


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("red above blue", ["red above blue"], 1.0),
        ("Red, and nothing else", ["red above blue"], 0.5),
        ("red red red", ["red above blue above red"], 2 / 3),
        ("blue", ["red above blue", "a blue flag"], 0.5),
        ("infrared", ["red"], 0.0),
        ("a flag", ["a banner"], 1.0),
    ],
)
def test_recall_by_hand(prediction, references, expected):
    score = captionkit.score([prediction], [references], metrics=["colour_recall"])
    assert score == {"colour_recall": pytest.approx(expected)}


def test_the_corpus_counts_words_not_pairs():
    predictions, references = ["red", "nothing"], [["red"], ["red blue white"]]
    assert captionkit.score(predictions, references, metrics=["colour_recall"]) == {
        "colour_recall": pytest.approx(1 / 4)
    }
