"""docs/benchmarks.md is what benchmarks/page.py makes of the results: no figure is hand-edited."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not distributed here"
)


@pytest.fixture(scope="module")
def page():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import page

        yield page
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture
def results(page):
    return page.read_results(page.RESULTS)


def test_the_page_is_that_of_the_results(page, results):
    text, _ = page.build(results)
    assert page.PAGE.read_text(encoding="utf-8") == text, "run: python benchmarks/page.py"


def test_each_picture_shows_the_figures_of_the_results(page, results):
    import plots

    text, ratios = page.build(results)
    shown = plots.pictures(results, ratios)
    assert set(re.findall(r"\]\(images/(bench_\w+\.svg)\)", text)) == set(shown)
    for name, (values, _) in shown.items():
        picture = (page.IMAGES / name).read_text(encoding="utf-8")
        assert f"figures {page.digest(values)}" in picture, f"{name}: run benchmarks/page.py"


def test_another_figure_is_another_page_and_another_picture(page, results, tmp_path):
    import plots

    changed = copy.deepcopy(results)
    changed["host"]["ratio"] += 1
    (before, ratios), (after, _) = page.build(results), page.build(changed)
    assert before != after
    digests = []
    for these in (results, changed):
        values, _ = plots.pictures(these, ratios)["bench_ratios.svg"]
        digests.append(page.digest(values))
    assert digests[0] != digests[1]


def test_every_result_has_its_figures_on_the_page(page, results):
    """Each is changed in turn, and the page with it."""
    text, _ = page.build(results)
    for name in results:
        fewer = {other: result for other, result in results.items() if other != name}
        assert page.build(fewer)[0] != text, name


def test_results_that_are_not_there_are_named(page, results):
    del results["host_cache"]
    results = {n: r for n, r in results.items() if not n.startswith(("frozen", "limits"))}
    text, ratios = page.build(results)
    assert "`host_cache`" in text
    assert re.search(r"Not measured yet: .*`frozen_flax_half`", text)
    assert "bench_limits.svg" not in text
    assert "host_cache" not in ratios
    nothing, none = page.build({})
    assert "Not measured yet" in nothing
    assert not none


def test_results_of_benchmarks_that_the_page_does_not_know_come_last(page, results):
    results["new"] = {**results["host"], "title": "something new"}
    results["newer"] = {**results["bulk_memory"], "title": "something of another shape"}
    text, ratios = page.build(results)
    others = text.partition("## Others")[2]
    assert "something new" in others
    assert "something of another shape" in others
    assert ratios[-1] == "new"


def test_a_ratio_below_its_target_is_said_to_be(page):
    result = {
        "title": "a", "date": "2026-01-01", "python": "3", "machine": "m", "versions": {},
        "seconds": {"peer": [3.0, 2.0], "ours": [2.0, 2.0]}, "ratio": 1.25, "target": 1.3,
    }  # fmt: skip
    row = page.Page({"a": result}).compared("bench_a: a").splitlines()[-1]
    assert row == (
        "| a (`bench_a`) | peer: 2.50 s | ours: 2.00 s | 1.25x (1.00 to 1.50) "
        "| 1.3x, not reached | 2026-01-01 |"
    )
    result["ratio"] = 1.3
    assert "not reached" not in page.Page({"a": result}).compared("bench_a: a")


def test_pictures_are_drawn_of_whatever_there_is(page, results, tmp_path):
    import plots

    some = {name: results[name] for name in ("host", "bulk_flax")}
    _, ratios = page.build(some)
    assert plots.draw(some, ratios, tmp_path) == ["bench_ratios.svg"]
    text = (tmp_path / "bench_ratios.svg").read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert "85 photos to 224 px float32, one core" in text
    assert json.dumps(str(tmp_path)) not in text
