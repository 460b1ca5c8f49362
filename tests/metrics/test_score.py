import pytest

import captionkit
from captionkit import registry
from captionkit.errors import ConfigError, MetricError
from captionkit.metrics import EmptyPredictionWarning, score, score_pairs
from captionkit.metrics.bleu import Bleu
from captionkit.metrics.wer import Wer

OFFLINE = ("bleu", "cer", "cider", "cider_d", "distinct", "length", "rouge", "rouge_l", "wer")


def test_one_reference_or_many():
    single = score(["a dog", "two cats"], ["a dog", "two dogs"], metrics=["wer", "bleu"])
    assert single == score(["a dog", "two cats"], [["a dog"], ["two dogs"]], ["wer", "bleu"])
    assert single["wer"] == 1 / 4
    many = score(["a dog", "two cats"], [["a dog"], ["two dogs", "two cats"]], ["wer"])
    assert many == {"wer": 0.0}


@pytest.mark.parametrize("name", OFFLINE)
def test_every_metric_gives_a_value_an_image_and_repeats_itself(name, captions):
    first, again = (score_pairs(captions, [name]) for _ in range(2))
    assert first == again
    metric = registry.get_metric(name)
    assert tuple(first.corpus) == metric.keys == tuple(first.per_image)
    for key, values in first.per_image.items():
        assert len(values) == len(captions)
        assert all(type(value) is float for value in [first.corpus[key], *values])


@pytest.mark.parametrize("name", OFFLINE)
def test_perfect_captions_are_at_the_best_end(name, captions):
    pairs = [(references[0], references) for _, references in captions]
    perfect, other = score_pairs(pairs, [name]).corpus, score_pairs(captions, [name]).corpus
    if name in ("distinct", "length"):
        return
    higher = registry.get_metric(name).higher_is_better
    for key in perfect:
        assert perfect[key] > other[key] if higher else perfect[key] < other[key]


def test_a_stream_and_objects_do():
    scores = score_pairs(((c, [c]) for c in ("a dog runs far", "two cats")), ["wer", Bleu()])
    assert scores.corpus["wer"] == 0
    assert scores.per_image["bleu1"] == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], ["a", "b"], "1 predictions but 2 references"),
        ([], [], "nothing to score"),
        (["a", None], ["a", "b"], "Prediction 1 should be text, found NoneType"),
        (["a"], [3], "references of pair 0 should be text or a list of texts, found int"),
        (["a", "b"], [["a"], ["b", 5]], "Each reference of pair 1 should be text, found int"),
        (["a", "b", "c"], [["a"], ["b"], []], "Pair 2 has no reference"),
        ("a", ["a"], "predictions should be a list, found str"),
        (["a"], "a", "references should be a list, found str"),
        (iter(["a"]), ["a"], "predictions should be a list"),
    ],
)
def test_bad_input(predictions, references, message):
    with pytest.raises(MetricError, match=message):
        score(predictions, references)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "No metric was asked for"),
        (["wer", "wer"], "both give a value named 'wer'"),
        (["wer", Wer()], "both give a value named 'wer'"),
        ([Wer], "A metric should be a name or an object"),
        ([5], "A metric should be a name or an object"),
    ],
)
def test_bad_metrics(metrics, message):
    with pytest.raises(MetricError, match=message):
        score(["a"], ["a"], metrics)


def test_unknown_metric_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'rouge_l'"):
        score(["a"], ["a"], ["rogue_l"])


def test_empty_predictions_are_counted_and_named():
    predictions = ["a", "", " ", *[""] * 20]
    with pytest.warns(
        EmptyPredictionWarning, match=r"22 of 23 predictions are empty \(pairs 1, 2, 3.*\.\.\.\)"
    ) as caught:
        scores = score(predictions, ["a"] * 23, OFFLINE)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert scores["wer"] == 22 / 23


def test_all_are_listed_with_a_line_of_explanation():
    listed = {metric.name: metric for metric in captionkit.list_metrics()}
    assert {*OFFLINE, "meteor", "meteor_nltk", "spice"} <= listed.keys()
    for metric in listed.values():
        assert metric.state != "broken"
        assert 20 < len(metric.summary) <= 100
