"""Both ways between our metrics and `evaluate`, without the network."""

import textwrap

import evaluate
import pytest

from captionkit.errors import ConfigError, MetricError
from captionkit.metrics import score, score_pairs
from captionkit.metrics.hf import as_evaluate_metric, from_evaluate

PREDICTIONS = ["a dog runs", "two cats sit", "a boat"]
REFERENCES = [["a dog runs", "the dog"], ["two dogs sit"], ["a red boat", "boats"]]


def module(tmp_path, name, body, references="datasets.Sequence(text)", predictions="text"):
    """The script of an evaluate module, as a hub would hold it."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.py").write_text(
        textwrap.dedent(
            f"""
            import datasets
            import evaluate

            text = datasets.Value("string")

            class Module(evaluate.Metric):
                def _info(self):
                    features = datasets.Features(
                        {{"predictions": {predictions}, "references": {references}}}
                    )
                    return evaluate.MetricInfo(
                        description="", citation="", inputs_description="", features=features
                    )

                def _compute(self, predictions, references, **options):
                    {body}
            """
        ),
        encoding="utf-8",
    )
    return str(folder)


@pytest.mark.parametrize("name", ["wer", "rouge", "bleu", "cider"])
def test_ours_as_theirs(name):
    metric = as_evaluate_metric(name)
    assert isinstance(metric, evaluate.Metric)
    expected = score(PREDICTIONS, REFERENCES, [name])
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES) == expected
    metric.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    metric.add(prediction=PREDICTIONS[2], reference=REFERENCES[2])
    assert metric.compute() == expected


def test_ours_as_theirs_with_one_reference_and_options():
    single = [references[0] for references in REFERENCES]
    metric = as_evaluate_metric("wer")
    expected = score(PREDICTIONS, single, ["wer"])
    assert metric.compute(predictions=PREDICTIONS, references=single) == expected
    strict = as_evaluate_metric("wer", normalize=False)
    assert strict.compute(predictions=["A dog."], references=["a dog"]) == {"wer": 1.0}


def test_an_unknown_one_of_ours():
    with pytest.raises(ConfigError, match=r"There is no metric 'wre'.*did you mean 'wer'"):
        as_evaluate_metric("wre")


def test_theirs_as_ours(tmp_path):
    body = (
        "return {'share': sum(p in r for p, r in zip(predictions, references)) / len(references),"
        " 'each': [float(len(r)) for r in references], 'name': 'x', 'scale': options['scale']}"
    )
    metric = from_evaluate(module(tmp_path, "share", body), scale=3)
    scores = score_pairs(zip(PREDICTIONS, REFERENCES), [metric])
    assert scores.corpus == {"share": 1 / 3, "each": 5 / 3, "scale": 3.0}
    assert scores.per_image == {"each": [2.0, 1.0, 2.0]}
    assert metric.keys == ("share", "each", "scale")
    assert metric.higher_is_better
    metric.update("a dog", ["a dog"])  # goes on after a value was asked for
    assert metric.compute().corpus["share"] == 2 / 4


def test_a_module_for_one_reference(tmp_path):
    body = "return {'same': sum(p == r for p, r in zip(predictions, references))}"
    path = module(tmp_path, "same", body, references="text")
    assert score(["a", "b"], ["a", "c"], [from_evaluate(path)]) == {"same": 1.0}
    with pytest.raises(MetricError, match="takes one reference for each prediction, pair 1 has 2"):
        score(["a", "b"], [["a"], ["b", "c"]], [from_evaluate(path)])


def test_a_module_that_does_not_score_text(tmp_path):
    path = module(
        tmp_path, "classes", "return {}", "datasets.Value('int32')", "datasets.Value('int32')"
    )
    with pytest.raises(MetricError, match="does not score texts against references"):
        from_evaluate(path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('same number of references')", "failed on 1 pairs: ValueError: same"),
        ("return {'name': 'x'}", "returned no number"),
    ],
)
def test_a_module_that_fails(tmp_path, body, message):
    metric = from_evaluate(module(tmp_path, "fails" + message[:3], body))
    metric.update("a", ["a"])
    with pytest.raises(MetricError, match=message):
        metric.compute()


def test_neither_registered_nor_a_module():
    with pytest.raises(ConfigError, match=r"no metric 'bluu'.*did you mean 'bleu'.*Registered"):
        from_evaluate("bluu")
