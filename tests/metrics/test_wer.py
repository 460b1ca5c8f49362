import itertools

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.errors import MetricError
from captionkit.metrics.cer import Cer
from captionkit.metrics.wer import Wer

STANDARD = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),
        jiwer.RemoveWhiteSpace(replace_by_space=True),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
    ]
)
texts = st.text(st.sampled_from("abAB é.,-'’!? \t\n"), max_size=25)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=6)


def computed(metric, pairs):
    for prediction, references in pairs:
        metric.update(prediction, references)
    return metric.compute()


@given(pairs)
def test_equals_jiwer_without_normalisation(pairs):
    predictions, references = map(list, zip(*pairs))
    scores = computed(Wer(normalize=False), [(p, [r]) for p, r in pairs])
    assert scores.corpus["wer"] == pytest.approx(jiwer.wer(references, predictions))
    assert scores.per_image["wer"] == pytest.approx([jiwer.wer(r, p) for p, r in pairs])
    scores = computed(Cer(normalize=False), [(p, [r]) for p, r in pairs])
    assert scores.corpus["cer"] == pytest.approx(jiwer.cer(references, predictions))


@given(pairs)
def test_equals_jiwer_after_its_own_normalisation(pairs):
    predictions, references = (STANDARD(list(texts)) for texts in zip(*pairs))
    given_pairs = [(p, [r]) for p, r in pairs]
    wer = computed(Wer(), given_pairs).corpus["wer"]
    assert wer == pytest.approx(jiwer.wer(references, predictions))
    cer = computed(Cer(), given_pairs).corpus["cer"]
    assert cer == pytest.approx(jiwer.cer(references, predictions))


@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=4)), min_size=1, max_size=4))
def test_many_references_take_the_one_with_the_fewest_edits(pairs):
    edits = words = 0
    for prediction, references in pairs:
        outcomes = []
        for reference in references:
            out = jiwer.process_words([STANDARD(reference)], [STANDARD(prediction)])
            errors = out.substitutions + out.deletions + out.insertions
            outcomes.append((errors, -len(STANDARD(reference).split())))
        fewest, length = min(outcomes)
        edits, words = edits + fewest, words - length
    expected = edits / words if words else edits
    assert computed(Wer(), pairs).corpus["wer"] == pytest.approx(expected)


def test_the_order_of_references_does_not_matter():
    references = ["a dog runs", "a dog", "a dog runs far away", ""]
    found = {
        computed(Wer(), [("a cat runs", list(order))]).corpus["wer"]
        for order in itertools.permutations(references)
    }
    assert found == {1 / 3}


def test_worked_example():
    scores = computed(Wer(), [("A dog, running", ["a dog is running", "cat"]), ("", ["two words"])])
    assert scores.per_image == {"wer": [1 / 4, 1.0]}
    assert scores.corpus == {"wer": 3 / 6}


@pytest.mark.parametrize("metric", [Wer, Cer])
def test_no_reference_is_refused(metric):
    subject = metric()
    subject.update("a", ["a"])
    with pytest.raises(MetricError, match="Pair 1 has no reference"):
        subject.update("b", [])
