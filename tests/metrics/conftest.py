"""Random corpora for the tests of metrics."""

from __future__ import annotations

import random

import pytest

Pair = tuple[str, list[str]]


@pytest.fixture(scope="session")
def corpora() -> list[list[Pair]]:
    """Corpora of tokens with ties, repeats, empty captions, unequal numbers of references."""
    return [_corpus(random.Random(seed)) for seed in range(150)]


@pytest.fixture(scope="session")
def captions() -> list[Pair]:
    """Captions as people write them, three references each."""
    rng = random.Random(0)
    subjects = ["A dog", "two cats", "the man's bike", "A twin-hulled boat", "Three zebras"]
    verbs = ["sits on", "is standing near", "runs through", "looks at", "don't see"]
    places = ["the beach.", "a table, maybe", "a wet street!", "the U.S. flag", 'a "stop" sign']

    def caption() -> str:
        return f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(places)}"

    return [(caption(), [caption() for _ in range(3)]) for _ in range(60)]


def _corpus(rng: random.Random) -> list[Pair]:
    vocabulary = [f"w{i}" for i in range(rng.choice([2, 3, 5, 30, 200]))]

    def caption() -> str:
        return " ".join(rng.choices(vocabulary, k=rng.choice([0, 1, 2, 3, 5, 8, 12, 15])))

    corpus = [
        (caption(), [caption() for _ in range(rng.randint(1, 5))])
        for _ in range(rng.randint(2, 12))
    ]
    corpus[0] = (corpus[0][0], [*corpus[0][1], "w0"])  # some reference has a word
    return corpus
