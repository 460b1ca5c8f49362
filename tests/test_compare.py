import csv
import json

import numpy as np
import pytest

from captionkit.compare import compare, compare_files
from captionkit.errors import ConfigError, DataError, MetricError
from captionkit.metrics import score
from captionkit.metrics.bleu import Bleu

REFERENCES = [
    [f"a {colour} dog on the {place}", f"the dog is {colour}"]
    for colour in ("red", "blue")
    for place in ("beach", "street", "hill", "sofa", "table", "boat")
]
GOOD = [references[0] for references in REFERENCES]
BAD = ["a dog", *["a cat on the roof"] * 5, *GOOD[6:]]


def by_key(comparison):
    return {d.key: d for d in comparison.differences}


def test_values_are_those_of_score():
    found = by_key(compare(BAD, GOOD, REFERENCES, ["wer", "bleu", "cider"], resamples=200))
    one, other = (score(p, REFERENCES, ["wer", "bleu", "cider"]) for p in (BAD, GOOD))
    assert {key: d.a for key, d in found.items()} == one
    assert {key: d.b for key, d in found.items()} == other
    assert found["wer"].difference == other["wer"] - one["wer"] < 0


def test_wins_follow_the_direction_of_the_metric():
    found = by_key(compare(BAD, GOOD, REFERENCES, ["wer", "rouge"], resamples=200))
    for key in ("wer", "rouge1"):
        assert (found[key].a_better, found[key].b_better, found[key].same) == (0, 6, 6)
    swapped = by_key(compare(GOOD, BAD, REFERENCES, ["wer"], resamples=200))
    assert (swapped["wer"].a_better, swapped["wer"].b_better) == (6, 0)


def test_rounding_is_no_win():
    """CIDEr of the same caption differs in its last bits when other captions change."""
    draw = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    references = [[" ".join(draw.choice(words, 9)) for _ in range(3)] for _ in range(60)]
    one = [" ".join(draw.choice(words, 9)) for _ in references]
    other = [" ".join(draw.choice(words, 9)) if i < 5 else text for i, text in enumerate(one)]
    (cider,) = compare(one, other, references, ["cider"]).differences
    assert cider.a_better + cider.b_better <= 5
    assert cider.same >= 55


def test_a_clear_difference_and_none():
    clear = by_key(compare(BAD, GOOD, REFERENCES, ["wer", Bleu], resamples=5000))
    assert clear["wer"].low < clear["wer"].high < 0
    assert clear["bleu4"].low > 0
    # exact: of the 2^12 swaps those of the six images that differ matter, and two are as extreme
    assert clear["wer"].p_value == pytest.approx(2 / 2**6)
    none = by_key(compare(GOOD, GOOD, REFERENCES, ["wer"], resamples=100))["wer"]
    assert (none.low, none.high, none.p_value, none.same) == (0, 0, 1, 12)


def test_what_cannot_be_resampled_has_no_interval():
    found = by_key(compare(BAD, GOOD, REFERENCES, ["distinct"], resamples=50))
    assert found["vocabulary"].p_value is None
    assert found["vocabulary"].low is None
    table = compare(BAD, GOOD, REFERENCES, ["distinct"], resamples=50).table()
    assert next(line for line in table.splitlines() if line.startswith("vocabulary")).count(" - ")


def test_settings_and_lengths_are_checked():
    with pytest.raises(MetricError, match="There are 12 and 11 predictions and 12 references"):
        compare(BAD, GOOD[1:], REFERENCES)
    with pytest.raises(ConfigError, match="resamples=0"):
        compare(BAD, GOOD, REFERENCES, resamples=0)
    with pytest.raises(ConfigError, match=r"confidence=95\.0"):
        compare(BAD, GOOD, REFERENCES, confidence=95.0)


@pytest.fixture
def files(tmp_path):
    def write(name, captions, ids=None, references=None):
        rows = []
        for i, caption in zip(ids or range(len(captions)), captions):
            row = {"image_id": f"i{i}", "prediction": caption}
            rows.append(row | ({"references": references[i]} if references else {}))
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return path

    return write


def test_files(files, tmp_path):
    a = files("a.jsonl", BAD, references=REFERENCES)
    b = files("b.jsonl", GOOD[::-1], ids=range(11, -1, -1))
    comparison = compare_files(a, b, metrics=["wer", "bleu"], resamples=100)
    plain = compare(BAD, GOOD, REFERENCES, ["wer", "bleu"], resamples=100)
    assert comparison.differences == plain.differences
    table = comparison.table()
    assert "95% interval" in table
    assert f"12 images; a: {a}, b: {b}" in table
    assert len({len(line) for line in table.splitlines()[1:6]}) == 1  # columns are aligned

    comparison.write_json(tmp_path / "comparison.json")
    written = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert (written["images"], written["a"], written["differences"][0]["key"]) == (
        12,
        str(a),
        "wer",
    )
    comparison.write_csv(tmp_path / "comparison.csv")
    with open(tmp_path / "comparison.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == [f"i{i}" for i in range(12)]
    assert [row["prediction_b"] for row in rows] == GOOD
    assert float(rows[0]["wer_a"]) > float(rows[0]["wer_b"]) == 0


def test_files_of_different_images(files):
    a = files("a.jsonl", BAD, references=REFERENCES)
    b = files("b.jsonl", GOOD[2:], ids=range(2, 12))
    with pytest.raises(
        DataError, match=r"2 are only in the first \(i0, i1\), 0 only in the second"
    ):
        compare_files(a, b)


def test_files_without_references(files):
    with pytest.raises(DataError, match="holds no references"):
        compare_files(files("a.jsonl", BAD), files("b.jsonl", GOOD))
