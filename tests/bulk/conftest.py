"""Small pictures, and a captioner that needs no framework."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # for the tests' own captioner

from fake_captioner import FakeCaptioner, say

from captionkit.data.preprocess import Preprocessor

NAMES = ("a.png", "b.png", "c d.png", "inner/a.png", "inner/deep/e.png")


def draw(path, number):
    """A picture of its own for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def spoken(path, **how):
    """What the captioner says of a file, found without the code under test."""
    return say(Preprocessor.square(16)(Image.open(path).convert("RGB")), **how).text


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number, name in enumerate(NAMES):
        draw(folder / name, number)
    return folder


@pytest.fixture
def captioner():
    return FakeCaptioner()
