import itertools
import math
from collections import Counter

import numpy as np
import pytest

from captionkit.errors import MetricError
from captionkit.metrics.cider import Cider
from captionkit.metrics.document_frequencies import DocumentFrequencies


def ngrams(text):
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))


def counted(references):
    """Images an n-gram, by hand."""
    return Counter(g for texts in references for g in set().union(*map(ngrams, texts)))


def plain_cider(pairs, frequencies, images):
    """CIDEr of the paper: means of cosines, from dictionaries."""

    def vector(text, n):
        return {
            g: c * math.log(images / max(1, frequencies[g]))
            for g, c in ngrams(text).items()
            if len(g) == n
        }

    def cosine(a, b):
        norms = math.hypot(*a.values()) * math.hypot(*b.values())
        return sum(a[g] * b.get(g, 0.0) for g in a) / norms if norms else 0.0

    return [
        10 * np.mean([cosine(vector(p, n), vector(r, n)) for r in refs for n in range(1, 5)])
        for p, refs in pairs
    ]


def computed(metric, pairs):
    for prediction, references in pairs:
        metric.update(prediction, references)
    return metric.compute().per_image["cider"]


def test_counts_equal_a_dictionary(corpora):
    for pairs in corpora[:40]:
        references = [refs for _, refs in pairs]
        table = DocumentFrequencies.from_references(references, tokenized=True)
        expected = counted(references)
        found = {}
        previous = [()]
        for ngrams_, counts in zip(table.ngrams, table.counts):
            grams = [(*previous[p], table.words[w]) for p, w in zip(ngrams_.prefix, ngrams_.last)]
            found |= dict(zip(grams, counts.tolist()))
            previous = grams
        assert found == expected
        assert table.images == len(pairs)


def test_own_references_as_a_table_change_nothing(corpora, tmp_path):
    for pairs in corpora[:40]:
        references = [refs for _, refs in pairs]
        path = tmp_path / "df.npz"
        DocumentFrequencies.from_references(references, tokenized=True).save(path)
        with_table = computed(Cider(document_frequencies=path, tokenized=True), pairs)
        assert with_table == pytest.approx(computed(Cider(tokenized=True), pairs), rel=1e-12)


@pytest.mark.parametrize("table_from_others", [False, True])
def test_plain_cider_equals_the_paper(corpora, table_from_others):
    for pairs, others in itertools.pairwise(corpora[:40]):
        source = [refs for _, refs in (others if table_from_others else pairs)]
        table = DocumentFrequencies.from_references(source, tokenized=True)
        ours = computed(Cider(table, tokenized=True, robust=False), pairs)
        expected = plain_cider(pairs, counted(source), len(source))
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_one_image_scores_with_a_table(captions):
    table = DocumentFrequencies.from_references([refs for _, refs in captions])
    metric = Cider(document_frequencies=table)
    metric.update(*captions[0])
    assert metric.compute().corpus["cider"] > 0


def test_survives_saving(captions, tmp_path):
    table = DocumentFrequencies.from_references(
        [*(refs for _, refs in captions), ["naïve 日本 café"]]
    )
    loaded = DocumentFrequencies.load(table.save(tmp_path / "df.npz"))
    assert (loaded.words, loaded.images, loaded.tokenized) == (table.words, table.images, False)
    for a, b in zip(loaded.counts, table.counts):
        np.testing.assert_array_equal(a, b)


def test_only_empty_references_can_be_saved(tmp_path):
    path = DocumentFrequencies.from_references([[""], ["..."]]).save(tmp_path / "df.npz")
    assert DocumentFrequencies.load(path).words == ()


@pytest.mark.parametrize(
    "damage",
    [b"", b"not a zip", b"PK\x03\x04 cut off", None],
    ids=["empty", "text", "cut", "other"],
)
def test_other_files_are_refused(tmp_path, damage):
    path = tmp_path / "df.npz"
    if damage is None:
        np.savez(path, something=np.zeros(3))
    else:
        path.write_bytes(damage)
    with pytest.raises(MetricError, match=r"df\.npz does not hold document frequencies"):
        DocumentFrequencies.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last2", lambda a: a + 10**6),
        ("prefix3", lambda a: a - 10**6),
        ("count1", lambda a: a[:-1]),
        ("count4", lambda a: a + 10**6),
        ("format", lambda a: a + 7),
        ("words", lambda a: a[:-9]),
    ],
)
def test_damaged_tables_are_refused(tmp_path, captions, name, value):
    path = DocumentFrequencies.from_references(r for _, r in captions).save(tmp_path / "df.npz")
    arrays = dict(np.load(path))
    arrays[name] = value(arrays[name])
    np.savez(path, **arrays)
    with pytest.raises(MetricError, match="does not hold document frequencies"):
        DocumentFrequencies.load(path)


def test_helpful_refusals(tmp_path, captions):
    with pytest.raises(MetricError, match="There is no file"):
        Cider(document_frequencies=tmp_path / "nothing.npz")
    with pytest.raises(MetricError, match="no references to count"):
        DocumentFrequencies.from_references([])
    with pytest.raises(MetricError, match="Pair 1 has no reference"):
        DocumentFrequencies.from_references([["a"], []])
    table = DocumentFrequencies.from_references(r for _, r in captions)
    with pytest.raises(MetricError, match=r"saved as \.npz"):
        table.save(tmp_path / "df.json")
    with pytest.raises(MetricError, match="Cannot write"):
        table.save(tmp_path / "nowhere" / "df.npz")
    with pytest.raises(MetricError, match="tokenized"):
        Cider(document_frequencies=table, tokenized=True)
