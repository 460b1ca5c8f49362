"""The page of one run: what is on it, what is missing gracefully, and that nothing escapes."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import re

import pytest
from PIL import Image

from captionkit.collapse import collapse_warning
from captionkit.errors import DataError, ImageError, OutputError
from captionkit.report import compare_runs, write_report

HOSTILE = [
    "<script>document.title='pwned'</script>",
    "</script><script>pwned()</script>",
    '"><img src=x onerror=pwned()>',
    "' onmouseover='pwned()' x='",
    "<!-- -->]]> &amp; &lt;b&gt; {{ 7*7 }} {% raw %}",
    '=HYPERLINK("http://example.com") 🐱 naïve café العربية',
    "line\nbreak\ttab",
]


def cards(document):
    return list(document.one("ul", id="cards").all("li", class_="card"))


def caption_of(card):
    return card.one("p", class_="caption").text


def test_shows_scores_captions_curves_and_setup(write_run, pictures, page):
    folder = write_run()
    path = write_report(folder, pictures, "my run")
    assert path == folder / "report.html"
    document = page(path)

    assert document.one("h1").text == "my run"
    headline = {
        dl.one("dt").text: dl.one("b").text
        for dl in document.one("section", class_="hero").all("div", class_="score")
    }
    assert headline == {"WER": "0.07", "ROUGE-1": "93.0", "ROUGE-L": "91.2", "Loss": "0.412"}
    ways = [w.text.strip()[2:] for w in document.all("span", class_="way")]
    assert ways == ["lower is better", "higher is better", "higher is better", "lower is better"]

    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    by_id = {row["image_id"]: row for row in rows}
    assert {card.attributes["data-id"] for card in cards(document)} == set(by_id)
    for card in cards(document):
        row = by_id[card.attributes["data-id"]]
        assert caption_of(card) == row["prediction"]
        assert card.one("img").attributes["alt"] == row["prediction"]
        shown = " ".join(card.text.split())
        assert all(reference in shown for reference in row["references"])
        assert f"{100 * math.exp(row['score']):.0f} %" in shown
        assert ("the the the" in shown) == ("before" in row)

    titles = [h3.text for h3 in document.one("section", id="curves").all("h3")]
    assert titles == ["Loss", "WER", "ROUGE-L", "Learning rate"]
    setup = document.one("section", id="setup").text
    assert all(fact in setup for fact in ("2.13.0", "torch", "cpu", "93.4", "3 min 12 s", "6"))


def test_without_a_script_the_worst_come_first(write_run, page):
    values = [row["metrics"]["wer"] for row in write_rows(write_run, page)]
    assert values == sorted(values, reverse=True)


def write_rows(write_run, page):
    folder = write_run()
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    by_id = {row["image_id"]: row for row in rows}
    return [by_id[c.attributes["data-id"]] for c in cards(page(write_report(folder)))]


def test_the_recipes_best_metric_decides_what_is_worst(write_run, page):
    folder = write_run(recipe="training: {best_metric: rougeL}\n")
    document = page(write_report(folder))
    order = [card.attributes["data-id"] for card in cards(document)]
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    rows.sort(key=lambda row: row["metrics"]["rougeL"])
    assert order == [row["image_id"] for row in rows]


def test_is_accessible_in_structure(write_run, pictures, page):
    document = page(write_report(write_run(), pictures))
    ids = [e.attributes["id"] for e in document.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for attribute in ("aria-labelledby", "for"):
        for element in document.all():
            if target := element.attributes.get(attribute):
                assert target in ids
    for link in document.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids
    levels = [int(e.tag[1]) for e in document.all() if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    labelled = {label.attributes.get("for") for label in document.all("label")}
    for control in [*document.all("input"), *document.all("select")]:
        name = control.attributes.get("id")
        inside = control.parent.tag == "label"
        assert inside or name in labelled or control.attributes.get("aria-label"), name
    assert all(image.attributes.get("alt") for image in document.all("img"))
    assert document.one("main")
    assert document.one("html").attributes["lang"] == "en"
    assert document.one("p", id="count").attributes["aria-live"] == "polite"
    for plot in document.all("svg", class_="plot"):
        assert "at step" in plot.attributes["aria-label"]


def test_loads_nothing_and_allows_only_its_own_code(write_run, pictures, page):
    document = page(write_report(write_run(), pictures))
    for element in document.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), name
            assert name != "style"
            if name in ("src", "href"):
                assert value.startswith(("data:image/", "#"))
    policy = document.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in policy

    def digest(element):
        return (
            f"'sha256-{base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()}'"
        )

    assert directives["style-src"] == digest(document.one("style"))
    code = [s for s in document.all("script") if s.attributes.get("type") != "application/json"]
    assert directives["script-src"].split() == [digest(script) for script in code]


def test_hostile_text_stays_text(write_run, pictures, page):
    rows = [
        {
            "image_id": f"{text} {i}",
            "prediction": text,
            "references": [text, f"other {text}"],
            "score": -0.5,
            "before": text,
            "metrics": {text: 0.5, "wer": 0.1},
        }
        for i, text in enumerate(HOSTILE)
    ]
    folder = write_run(
        predictions=rows,
        metrics={text: 1.0 for text in HOSTILE},
        history=[{"step": 1, **{text: 2.0 for text in HOSTILE}}, {"step": 2, HOSTILE[0]: 1.0}],
        run={"warnings": HOSTILE, "versions": {HOSTILE[0]: HOSTILE[1]}, "device": HOSTILE[2]},
        recipe=json.dumps({"model": HOSTILE[1], HOSTILE[0]: HOSTILE[2], "data": {"x": HOSTILE[3]}}),
    )
    document = page(write_report(folder, pictures, HOSTILE[0]))
    assert len(list(document.all("script"))) == 3
    assert document.one("h1").text == HOSTILE[0]
    assert {caption_of(c) for c in cards(document)} == {" ".join(t.split()) for t in HOSTILE}
    assert {c.one("img").attributes["alt"] for c in cards(document)} == set(HOSTILE)
    assert {c.attributes["data-id"] for c in cards(document)} == {r["image_id"] for r in rows}
    notices = " ".join(n.text for n in document.all("div", class_="warning"))
    assert all(text in notices for text in HOSTILE)
    data = json.loads(document.one("script", id="gallery-data").text)
    assert {m["label"].lower() for m in data["measures"]} >= {
        text.replace("_", " ").strip().lower() for text in HOSTILE
    }


def test_lone_surrogates_and_controls_do_not_stop_the_page(write_run, page):
    rows = '{"image_id": "a\\ud800", "prediction": "x \\udfff y \\u0000 z", "references": ["r"]}\n'
    document = page(write_report(write_run(predictions=rows)))
    assert len(cards(document)) == 1


@pytest.mark.parametrize("kept", ["recipe", "history", "metrics", "predictions", "run"])
def test_any_single_file_makes_a_page(write_run, page, kept):
    parts = ("recipe", "history", "metrics", "predictions", "run")
    folder = write_run(**{part: None for part in parts if part != kept})
    document = page(write_report(folder))
    assert document.one("h1").text
    section = {"history": "curves", "predictions": "gallery"}.get(kept)
    assert {s.attributes["id"] for s in document.all("section") if "id" in s.attributes} >= (
        {section} if section else set()
    )
    ids = {e.attributes.get("id") for e in document.all()}
    assert all(a.attributes["href"][1:] in ids for a in document.all("a"))


def test_an_empty_run_makes_a_page(write_run, page):
    folder = write_run(history="", predictions="", metrics={}, run={}, recipe="{}")
    document = page(write_report(folder))
    assert not list(document.all("ul", id="cards"))
    assert not list(document.all("svg", class_="plot"))


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"predictions\.jsonl"):
        write_report(tmp_path)


def test_damaged_files_are_named(write_run, page):
    folder = write_run(
        history='{"step": 1, "loss": 2}\n{"step": 2, "lo',
        metrics="[1, 2]",
        run="{",
        recipe="a: [",
        predictions='{"image_id": "x", "prediction": "a cat"}\n\nnonsense\n[1]\n',
    )
    text = page(write_report(folder)).text
    assert "1 line of history.jsonl" in text
    assert "2 lines of predictions.jsonl" in text
    for name in ("metrics.json", "run.json", "recipe.yaml"):
        assert f"{name} could not be read" in text


def test_odd_values_are_dashes_not_errors(write_run, page):
    rows = [
        {
            "image_id": 7,
            "prediction": None,
            "score": math.nan,
            "references": "one",
            "metrics": None,
        },
        {"prediction": "a cat", "score": None, "references": None, "metrics": {"wer": math.nan}},
        {"image_id": "z", "prediction": "a", "score": -math.inf, "metrics": {"wer": 3, "x": "y"}},
        {"image_id": "huge", "prediction": "a", "score": 2, "metrics": {"wer": 10**400}},
    ]
    document = page(write_report(write_run(predictions=rows, metrics={"wer": math.nan, "x": "y"})))
    found = {c.attributes["data-id"]: c.text for c in cards(document)}
    assert set(found) == {"7", "1", "z", "huge"}
    assert "(empty caption)" in found["7"]
    assert "–" in found["1"]
    assert "0 %" in found["z"]
    data = json.loads(document.one("script", id="gallery-data").text)
    assert {row[0] for row in data["rows"]} == {3, None}


def test_a_loss_that_is_not_finite_is_said_aloud(write_run, page):
    history = [{"step": s, "loss": math.nan if s in (20, 30) else 2.0} for s in range(10, 60, 10)]
    document = page(write_report(write_run(history=history)))
    assert "not a finite number 2 times, first at step 20" in document.text
    line = next(p for p in document.all("path", class_="line") if p.parent.tag == "svg"
                and "plot" in p.parent.attributes.get("class", ""))  # fmt: skip
    assert line.attributes["d"].count("M") == 2


def test_collapse_is_a_banner_once(write_run, page):
    rows = [
        {"image_id": str(i), "prediction": "a photo", "references": [f"scene number {i}"]}
        for i in range(12)
    ]
    own = page(write_report(write_run("own", predictions=rows)))
    assert "12 of 12 images get the same caption" in own.text
    texts, references = [r["prediction"] for r in rows], [r["references"] for r in rows]
    for told in (
        "Nearly every image gets the same caption: 'a photo'.",
        collapse_warning(texts, references),
        collapse_warning(
            [f"a photo {i % 2}" for i in range(40)], [[f"scene {i}"] for i in range(40)]
        ),
    ):
        folder = write_run("told", predictions=rows, run={"warnings": [told]})
        for written in (write_report(folder), compare_runs([folder, folder])):
            banners = [n.text for n in page(written).all("div", class_="warning")]
            assert len(banners) == (1 if written.name == "report.html" else 2)
            assert all(told in banner for banner in banners)


def test_of_too_many_images_both_ends_are_shown_and_it_says_so(write_run, page):
    rows = [
        {"image_id": str(i), "prediction": "a", "references": ["b"], "metrics": {"wer": i / 100}}
        for i in range(100)
    ]
    document = page(write_report(write_run(predictions=rows), limit=20))
    shown = [int(card.attributes["data-id"]) for card in cards(document)]
    assert len(shown) == len(set(shown)) == 20
    assert shown[:5] == [99, 98, 97, 96, 95]
    assert shown[-5:] == [4, 3, 2, 1, 0]
    assert "Showing 20 of 100 images" in document.text
    bars = document.one("section", id="scores").all("title")
    assert sum(int(bar.text.rsplit(": ", 1)[1]) for bar in bars) == 100


def test_pictures_are_small_and_upright_in_shape(write_run, page):
    folder = write_run()
    write_report(folder, lambda i: Image.new("RGBA", (3000, 1000), "red"))
    for card in cards(page(folder / "report.html")):
        kind, data = card.one("img").attributes["src"].split(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (288, 96)
            assert kind == f"data:image/{image.format.lower()}"


def test_pictures_that_fail_leave_a_place_and_a_notice(write_run, pictures, page):
    def images(i):
        if i == 0:
            raise ImageError("truncated")
        return None if i == 1 else pictures(i)

    document = page(write_report(write_run(), images))
    assert sum("picture not available" in card.text for card in cards(document)) == 2
    assert "2 of 20 pictures could not be had" in document.text


def test_without_pictures_those_of_the_earlier_page_are_kept(write_run, pictures, page):
    rows = [{"image_id": f'"{i}" <b>&amp;', "prediction": "a", "references": []} for i in range(3)]
    folder = write_run(predictions=rows)
    before = {
        c.attributes["data-id"]: c.one("img").attributes["src"]
        for c in cards(page(write_report(folder, pictures)))
    }
    after = {
        c.attributes["data-id"]: c.one("img").attributes["src"]
        for c in cards(page(write_report(folder)))
    }
    assert after == before
    assert len(set(after.values())) == 3


def test_an_evaluation_is_called_one(write_run, page):
    folder = write_run(run={"command": "evaluate"}, history=None)
    assert "Evaluation report" in page(write_report(folder)).text


def test_an_unwritable_place_is_an_error_that_helps(write_run):
    folder = write_run()
    (folder / "report.html").mkdir()
    with pytest.raises(OutputError, match="captionkit report"):
        write_report(folder)
    assert sorted(p.name for p in folder.iterdir() if p.name.endswith(".tmp")) == []
