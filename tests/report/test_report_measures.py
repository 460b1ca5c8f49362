"""How values are named and written."""

from __future__ import annotations

import math

import pytest

from captionkit import registry
from captionkit.report import measures
from captionkit.report.measures import (
    better,
    change,
    in_order,
    label,
    leading,
    main_measure,
    number,
    scientific,
)


def test_a_metric_says_itself_which_way_is_better(monkeypatch):
    class Errors:
        keys, higher_is_better = ("errors", "hits"), False

    monkeypatch.setattr(registry, "_discover", lambda kind: {"errors": None})
    monkeypatch.setattr(registry, "_load", lambda kind, name: Errors)
    measures._directions.cache_clear()
    try:
        assert better("eval_errors") == better("hits") == "lower"
        assert better("anything") == "higher"
    finally:
        measures._directions.cache_clear()


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("wer", 0.0712, "0.07"),
        ("wer", 0, "0.00"),
        ("wer", 0.0042, "0.004"),
        ("eval_wer", 1.5, "1.50"),
        ("rouge1", 91.234, "91.2"),
        ("rougeLsum", 100.0, "100.0"),
        ("loss", 0.41234, "0.412"),
        ("cider", 1.3145, "1.315"),
        ("bleu4", 0.191, "0.191"),
        ("confidence", 81.4, "81 %"),
        ("learning_rate", 5e-5, "5e-5"),
        ("learning_rate", 0.001, "0.001"),
        ("learning_rate", 0.0, "0"),
        ("images_per_second", 1234.5, "1,234"),
        ("tokens", 12345, "12,345"),
        ("anything", -0.5, "−0.500"),
        ("loss", 3.2e-5, "3.2e-5"),
        ("loss", math.nan, "–"),
        ("loss", -math.inf, "−∞"),
        ("loss", None, "–"),
    ],
)
def test_numbers_are_written_as_readers_want_them(key, value, text):
    assert number(key, value) == text


@pytest.mark.parametrize("value", [5e-5, 7.5e-4, 1.23e-8, 1e-3, 2e7, -3e-5])
def test_scientific_numbers_read_back(value):
    assert float(scientific(value).replace("−", "-")) == pytest.approx(value)


def test_changes_have_a_sign():
    assert change("rougeL", 5.51) == "+5.5"
    assert change("wer", -0.0534) == "−0.053"
    assert change("loss", 0.0) == "0.000"


def test_names_are_those_of_papers():
    keys = ("wer", "eval_wer", "rouge1", "rougeLsum", "bleu_4", "Bleu_4", "cider", "my_metric")
    assert [label(key) for key in keys] == [
        "WER", "WER", "ROUGE-1", "ROUGE-Lsum", "BLEU-4", "BLEU-4", "CIDEr", "My metric",
    ]  # fmt: skip


def test_directions():
    assert {better(key) for key in ("wer", "cer", "loss", "eval_loss")} == {"lower"}
    assert {better(key) for key in ("rouge1", "cider", "bleu4", "unheard_of")} == {"higher"}
    assert {better(key) for key in ("learning_rate", "grad_norm", "gen_len")} == {None}


def test_order_and_choice():
    keys = ["loss", "rougeLsum", "rougeL", "rouge1", "mine", "wer", "wer"]
    assert in_order(keys) == ["wer", "rouge1", "rougeL", "rougeLsum", "loss", "mine"]
    assert leading(keys) == ["wer", "rougeL"]
    assert leading(["mine", "yours"]) == ["mine", "yours"]
    assert main_measure(keys) == "wer"
    assert main_measure(keys, "eval_rougeL") == "rougeL"
    assert main_measure(keys, "absent") == "wer"
    assert main_measure(["rouge1", "rougeL"]) == "rougeL"
    assert main_measure([]) is None
