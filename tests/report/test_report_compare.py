"""The page that compares two runs."""

from __future__ import annotations

import json

import pytest

from captionkit.errors import ConfigError, DataError
from captionkit.recipe import Recipe
from captionkit.report import compare_runs, write_report


def row(image_id, text, wer, score=-0.1):
    return {
        "image_id": image_id,
        "prediction": text,
        "score": score,
        "references": ["a red dog", "one dog"],
        "metrics": {"wer": wer},
    }


@pytest.fixture
def two_runs(write_run):
    recipe = Recipe().replace(model="git-tiny", dataset="critters", learning_rate=1e-3)
    a = write_run(
        "first",
        recipe=recipe.to_yaml(),
        predictions=[row("x", "a dog", 0.5), row("y", "a cat", 0.75), row("z", "dog", 0.25)],
        metrics={"wer": 0.5, "rougeL": 70.0, "loss": 1.0},
    )
    b = write_run(
        "second",
        recipe=recipe.replace(learning_rate=1e-4).to_yaml(),
        predictions=[row("z", "a dog", 0.5), row("x", "a red dog", 0.0), row("y", "a hat", 0.75)],
        metrics={"wer": 0.4, "rougeL": 60.0, "loss": 1.0},
    )
    return a, b


def test_scores_stand_side_by_side_with_the_better_named(two_runs, tmp_path, page):
    document = page(compare_runs(two_runs, output=tmp_path / "out" / "c.html"))
    assert document.one("h1").text == "first and second"
    rows = [
        [cell.text for cell in line.all("td")]
        for line in document.one("section", id="metrics").one("tbody").all("tr")
    ]
    assert rows == [
        ["0.50", "0.40", "−0.100", "B"],
        ["70.0", "60.0", "−10.0", "A"],
        ["1.000", "1.000", "0.000", "–"],
    ]
    outcomes = document.one("ul", class_="outcomes").text
    assert "A better on 1, equal on 1, B better on 1" in outcomes


def test_images_are_matched_by_id_where_a_is_better_first(two_runs, tmp_path, page):
    document = page(compare_runs(two_runs, output=tmp_path / "c.html"))
    cards = list(document.one("ul", id="cards").all("li", class_="card"))
    assert [card.attributes["data-id"] for card in cards] == ["z", "y", "x"]
    captions = [[p.text for p in card.all("p", class_="caption")] for card in cards]
    assert captions == [["dog", "a dog"], ["a cat", "a hat"], ["a dog", "a red dog"]]
    data = json.loads(document.one("script", id="gallery-data").text)
    assert [m["key"] for m in data["measures"]] == [
        "change_wer", "wer_a", "wer_b", "confidence_a", "confidence_b",
    ]  # fmt: skip
    assert [values[:3] for values in data["rows"]] == [
        [0.25, 0.25, 0.5], [0.0, 0.75, 0.75], [-0.5, 0.5, 0.0],
    ]  # fmt: skip


def test_settings_that_differ_are_listed_and_only_those(two_runs, tmp_path, page):
    document = page(compare_runs(two_runs, output=tmp_path / "c.html"))
    panels = {p.one("h3").text: p for p in document.one("section", id="setup").all(class_="panel")}
    lines = panels["Settings that differ"].one("tbody").all("tr")
    assert [[c.text for c in line.children] for line in lines] == [
        ["learning_rate", "0.001", "0.0001"]
    ]


def test_pictures_come_from_the_first_run_or_its_report(two_runs, tmp_path, pictures, page):
    def sources(path):
        return {
            card.attributes["data-id"]: [image.attributes["src"] for image in card.all("img")]
            for card in page(path).one("ul", id="cards").all("li", class_="card")
        }

    bare = sources(compare_runs(two_runs, output=tmp_path / "0.html"))
    assert bare == {"x": [], "y": [], "z": []}
    given = sources(compare_runs(two_runs, pictures, tmp_path / "1.html"))
    assert len({source for (source,) in given.values()}) == 3
    write_report(two_runs[0], pictures)
    assert sources(compare_runs(two_runs, output=tmp_path / "2.html")) == given


def test_different_images_are_said_not_to_be_comparable(two_runs, write_run, tmp_path, page):
    other = write_run("third", predictions=[row("x", "a", 1.0), row("new", "a", 1.0)])
    document = page(compare_runs([two_runs[0], other], output=tmp_path / "c.html"))
    assert "1 are in both, 2 only in A, 1 only in B" in document.text
    assert len(list(document.all("li", class_="card"))) == 1


def test_runs_of_one_name_are_told_apart(write_run, tmp_path, page):
    a, b = write_run("one/run"), write_run("two/run")
    assert page(compare_runs([a, b])).one("h1").text == "run (A) and run (B)"
    assert (b / "comparison.html").is_file()


def test_runs_without_anything_in_common_still_compare(write_run, tmp_path, page):
    a = write_run("a", predictions="", metrics={}, run={}, recipe="{}", history="")
    document = page(compare_runs([a, write_run("b")], output=tmp_path / "c.html"))
    assert not list(document.all("li", class_="card"))
    assert document.one("section", id="curves")


def test_two_runs_are_needed(two_runs, tmp_path):
    with pytest.raises(ConfigError, match="two runs, found 1"):
        compare_runs(two_runs[:1], output=tmp_path / "c.html")
    with pytest.raises(DataError, match="holds no run"):
        compare_runs([two_runs[0], tmp_path], output=tmp_path / "c.html")
