from collections import Counter

import pytest

from captionkit.metrics.distinct import Distinct
from captionkit.metrics.length import Length


def computed(metric, predictions):
    for prediction in predictions:
        metric.update(prediction, ["anything"])
    return metric.compute()


def test_distinct_against_counting(captions):
    predictions = ["a dog"] * 7 + [prediction.lower() for prediction, _ in captions]
    scores = computed(Distinct(), predictions)
    texts = [  # the tokens of these captions, by hand
        p.replace("'s", " 's").replace("don't", "do n't").replace(",", "").replace('"', "")
        for p in predictions
    ]
    texts = [t.rstrip("!.").strip() for t in texts]
    counts = Counter(texts)
    assert scores.corpus == {
        "distinct_captions": len(counts),
        "vocabulary": len({word for text in texts for word in text.split()}),
        "most_common_share": max(counts.values()) / len(texts),
    }
    assert sum(scores.per_image["distinct_captions"]) == pytest.approx(len(counts))
    assert scores.per_image["distinct_captions"] == [1 / counts[text] for text in texts]
    assert scores.per_image["vocabulary"] == [len(set(text.split())) for text in texts]
    assert scores.per_image["most_common_share"][:8] == [1.0] * 7 + [0.0]


def test_case_and_punctuation_make_no_caption_distinct():
    assert computed(Distinct(), ["A dog.", "a dog", "a  dog!"]).corpus["distinct_captions"] == 1


def test_length_counts_tokens():
    scores = computed(Length(), ["A dog isn't here.", "", "one"])
    assert scores.per_image == {"length": [5.0, 0.0, 1.0]}
    assert scores.corpus == {"length": 2.0}


def test_nothing_scored_yet():
    assert set(Distinct().compute().corpus.values()) == {0.0}
    assert Length().compute().corpus == {"length": 0.0}
