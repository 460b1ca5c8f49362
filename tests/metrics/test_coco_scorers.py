"""BLEU, ROUGE-L and CIDEr against the Python scorers of the COCO evaluation."""

import json
import warnings

import numpy as np
import pytest
import sacrebleu
from pycocoevalcap.bleu.bleu import Bleu as CocoBleu
from pycocoevalcap.cider.cider import Cider as CocoCider
from pycocoevalcap.rouge.rouge import Rouge as CocoRouge

from captionkit.metrics.bleu import Bleu
from captionkit.metrics.cider import Cider, CiderD
from captionkit.metrics.rouge_l import RougeL

KEYS = {
    "Bleu_1": "bleu1",
    "Bleu_2": "bleu2",
    "Bleu_3": "bleu3",
    "Bleu_4": "bleu4",
    "ROUGE_L": "rouge_l",
    "CIDEr": "cider",
}


def computed(metric, pairs):
    for prediction, references in pairs:
        metric.update(prediction, references)
    return metric.compute()


def same(ours, theirs):
    return ours == pytest.approx(theirs, rel=1e-9, abs=1e-15)


def as_coco(pairs):
    truth = {i: references for i, (_, references) in enumerate(pairs)}
    return truth, {i: [prediction] for i, (prediction, _) in enumerate(pairs)}


def test_bleu(corpora):
    for pairs in corpora:
        corpus, per_image = CocoBleu(4).compute_score(*as_coco(pairs), verbose=0)
        scores = computed(Bleu(tokenized=True), pairs)
        for key, expected, each in zip(Bleu.keys, corpus, per_image, strict=True):
            assert same(scores.corpus[key], expected)
            assert same(scores.per_image[key], list(each))


def test_rouge_l(corpora):
    for pairs in corpora:
        corpus, per_image = CocoRouge().compute_score(*as_coco(pairs))
        scores = computed(RougeL(tokenized=True), pairs)
        assert same(scores.corpus["rouge_l"], corpus)
        assert same(scores.per_image["rouge_l"], list(per_image))


@pytest.mark.parametrize("metric", [Cider, CiderD])
def test_cider(corpora, metric):
    for pairs in corpora:
        corpus, per_image = CocoCider().compute_score(*as_coco(pairs))
        scores = computed(metric(tokenized=True), pairs)
        assert same(scores.corpus[metric.keys[0]], corpus)
        assert same(scores.per_image[metric.keys[0]], list(per_image))


def test_cider_over_one_image_is_nothing_and_says_so():
    with pytest.warns(UserWarning, match="single image"):
        scores = computed(Cider(), [("a dog", ["a dog"])])
    assert scores.corpus["cider"] == 0


def test_values_can_be_asked_for_in_between(corpora):
    metrics = [Bleu(tokenized=True), RougeL(tokenized=True), Cider(tokenized=True)]
    pairs = corpora[0]
    for metric in metrics:
        computed(metric, pairs[:2])
        assert computed(metric, pairs[2:]) == computed(type(metric)(tokenized=True), pairs)


def test_nothing_scored_yet():
    for metric in (Bleu(), RougeL(), Cider()):
        assert set(metric.compute().corpus.values()) <= {0.0}


def _coco_scores(shared_data, form):
    folder = shared_data / "metrics" / "fakecap"
    rows = json.loads((folder / "ground_truth.json").read_text(encoding="utf-8"))
    pairs = [(row[f"caption_{form}"], row[f"references_{form}"]) for row in rows]
    return pairs, json.loads((folder / "scores.json").read_text(encoding="utf-8"))


@pytest.mark.acceptance
@pytest.mark.parametrize("form", ["ptb", "raw"])
def test_real_captions(shared_data, form):
    pairs, expected = _coco_scores(shared_data, form)
    for metric in (Bleu, RougeL, Cider):
        scores = computed(metric(tokenized=form == "ptb"), pairs)
        for name, key in KEYS.items():
            if key in scores.corpus:
                assert same(scores.corpus[key], expected["corpus"][name])
                assert same(scores.per_image[key], [row[name] for row in expected["per_image"]])


@pytest.mark.acceptance
def test_published_example_of_nlg_eval(shared_data):
    folder = shared_data / "metrics" / "nlg_eval_example"
    predictions, *references = (
        (folder / name).read_text(encoding="utf-8").splitlines()
        for name in ("hyp.txt", "ref1.txt", "ref2.txt")
    )
    expected = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    pairs = list(zip(predictions, zip(*references)))
    for metric in (Bleu, RougeL, Cider):
        scores = computed(metric(tokenized=True), pairs)
        for name, key in KEYS.items():
            if key in scores.corpus:
                assert scores.corpus[key] == pytest.approx(expected[name], abs=6e-7)


def test_bleu_equals_sacrebleu_where_nothing_is_smoothed():
    rng = np.random.default_rng(0)

    def caption():
        return " ".join(f"w{i}" for i in rng.integers(0, 4, rng.integers(4, 14)))

    pairs = [(caption(), [caption() for _ in range(3)]) for _ in range(40)]
    predictions = [prediction for prediction, _ in pairs]
    references = [list(each) for each in zip(*(references for _, references in pairs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sacrebleu.corpus_bleu(
            predictions, references, tokenize="none", smooth_method="none", force=True
        )
    ours = computed(Bleu(tokenized=True), pairs).corpus
    assert ours["bleu4"] == pytest.approx(result.score / 100, rel=1e-6)
    assert ours["bleu1"] == pytest.approx(result.bp * result.precisions[0] / 100, rel=1e-6)
