import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from captionkit.metrics.rouge import Rouge

KEYS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


@pytest.mark.parametrize("stem", [True, False])
def test_equals_rouge_score_with_the_best_reference_for_each_key(captions, stem):
    metric, scorer = Rouge(stem=stem), RougeScorer(KEYS, use_stemmer=stem)
    expected = {key: [] for key in KEYS}
    for prediction, references in captions:
        metric.update(prediction, references)
        scores = [scorer.score(reference, prediction) for reference in references]
        for key in KEYS:
            expected[key].append(100 * max(score[key].fmeasure for score in scores))
    result = metric.compute()
    for key in KEYS:
        assert result.per_image[key] == pytest.approx(expected[key])
        assert result.corpus[key] == pytest.approx(np.mean(expected[key]))
    assert len({tuple(values) for values in expected.values()}) > 2  # the keys do differ


def test_stems_match():
    with_stems, without = Rouge(), Rouge(stem=False)
    for metric in (with_stems, without):
        metric.update("dogs running", ["a dog runs"])
    assert with_stems.compute().corpus["rouge1"] == pytest.approx(80)
    assert without.compute().corpus["rouge1"] == 0


def test_empty_prediction_scores_nothing():
    metric = Rouge()
    metric.update("", ["a dog"])
    assert set(metric.compute().corpus.values()) == {0.0}
