"""A captioner without a framework: what it says is a pure function of pixels (and seeds)."""

from __future__ import annotations

import hashlib
import time

import numpy as np

from captionkit.data.images import open_image
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ConfigError
from captionkit.types import Caption

WORDS = ("a", "small", "red", "blue", "dog", "cat", "tree", "on", "under", "the", "hill", "moon")


class FakeCaptioner:
    """pause: seconds a batch. preprocess: None for a captioner that does all of it by itself."""

    def __init__(self, pause=0.0, preprocess=None):
        self.pause = pause
        self.batches = []
        if preprocess is not None:
            self.preprocess = preprocess

    def caption(self, images, *, batch_size=32, seeds=None, **decoding):
        if not images or len(images) > batch_size:
            raise ConfigError(f"{len(images)} images in a batch of {batch_size}")
        self.batches.append(len(images))
        time.sleep(self.pause)
        prepare = getattr(self, "preprocess", None) or Preprocessor.square(16)
        found = []
        for row, image in enumerate(images):
            pixels = prepare(open_image(image))
            drawn = seeds[row] if decoding.get("do_sample") else 0
            for rank in range(decoding.get("num_return_sequences", 1)):
                found.append(say(pixels, drawn, rank, decoding.get("token_probabilities")))
        return found


def say(pixels, seed=0, rank=0, token_probabilities=False):
    """The caption of uint8 pixels."""
    bits = hashlib.sha256(np.ascontiguousarray(pixels).tobytes() + bytes(f"{seed}/{rank}", "ascii"))
    words = [WORDS[byte % len(WORDS)] for byte in bits.digest()[:8]]
    score = -bits.digest()[8] / 100 - rank
    caption = Caption(" ".join(words), score)
    if token_probabilities:
        pairs = tuple((word, round(0.9 - rank / 10, 4)) for word in words)
        object.__setattr__(caption, "token_probabilities", pairs)
    return caption
