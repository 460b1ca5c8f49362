"""The pages in a real browser: sorting, filtering, themes, size, silence.

Needs Chromium, its driver and selenium; skips without them. Screenshots go to
$CAPTIONKIT_SCREENSHOTS, or else to the temporary folder of the test.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from captionkit.report import compare_runs, write_report

pytestmark = pytest.mark.browser


def picture(i: int) -> Image.Image:
    image = Image.new("RGB", (160, 120), (60 + i * 37 % 160, 60 + i * 91 % 160, 60 + i * 13 % 160))
    ImageDraw.Draw(image).ellipse((30, 20, 130, 110), fill=(250 - i * 7 % 200, 200, i % 255))
    return image


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def in_order(rows, value, descending):
    natural = [
        [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", r["image_id"])] for r in rows
    ]
    pairs = sorted(zip(rows, natural), key=lambda pair: pair[1])
    pairs.sort(key=lambda pair: value(pair[0]), reverse=descending)
    return [row["image_id"] for row, _ in pairs]


def test_sorts_by_every_measure_both_ways(browser, write_run):
    folder = write_run()
    browser.open(write_report(folder, picture)).click("#show-all")
    rows = rows_of(folder)
    columns = [
        ("WER", lambda r: r["metrics"]["wer"], True),
        ("ROUGE-L", lambda r: r["metrics"]["rougeL"], False),
        ("Confidence (%)", lambda r: r["score"], False),
        ("Image id", lambda r: 0, False),
    ]
    options = browser.run("return [...document.querySelector('#sort-by').options].map(o => o.text)")
    assert options == [name for name, *_ in columns]
    for place, (name, value, worst_is_high) in enumerate(columns):
        key = "id" if name == "Image id" else str(place)
        for end in ("worst", "best"):
            browser.set("#sort-by", key)
            browser.click(f"[value={end}]")
            browser.click("#show-all")
            expected = in_order(rows, value, worst_is_high)
            if end == "best":
                expected = in_order(rows, value, not worst_is_high)
                expected = expected[::-1] if name == "Image id" else expected
            assert browser.shown() == expected, (name, end)
    labels = browser.run("return document.querySelector('.segments').innerText.split('\\n')")
    assert [label.strip() for label in labels] == ["A to Z", "Z to A"]


def test_filters_by_words_and_by_threshold(browser, write_run):
    folder = write_run()
    rows = rows_of(folder)
    rows[3]["prediction"] = "a Zeppelin over <b>water</b>"
    rows[5]["references"][2] = "the old zeppelin"
    folder = write_run(predictions=rows)
    browser.open(write_report(folder, picture))
    browser.set("#query", "ZEPPELIN")
    assert sorted(browser.shown()) == ["image-3.png", "image-5.png"]
    assert browser.count() == "2 of 20 images"
    browser.set("#query", "zeppelin <b>water")
    assert browser.shown() == ["image-3.png"]
    browser.set("#query", "nearest")  # our own word, not one of the captions
    assert browser.shown() == []
    browser.set("#query", "no such word")
    assert browser.shown() == []
    assert "No image matches" in browser.count()
    browser.reset()
    assert browser.count().startswith("20 images")

    browser.set("#measure", "1")
    browser.set("#least", "30")
    browser.set("#below", "80.5")
    browser.run("document.querySelector('#show-all').click()")
    inside = {r["image_id"] for r in rows if 30 <= r["metrics"]["rougeL"] < 80.5}
    assert set(browser.shown()) == inside
    assert browser.count() == f"{len(inside)} of 20 images"
    assert browser.complaints() == []


def test_a_bar_of_a_histogram_shows_its_images(browser, write_run):
    browser.open(write_report(write_run(), picture))
    bars = browser.run(
        "return [...document.querySelectorAll('.hit[data-key]')].map(b => b.textContent)"
    )
    assert len(bars) > 20
    for i, text in enumerate(bars):
        browser.run(
            "document.querySelectorAll('.hit[data-key]')[arguments[0]]"
            ".dispatchEvent(new Event('click'))", i,
        )  # fmt: skip
        expected = int(text.rsplit(": ", 1)[1])
        found = re.match(r"(\d+)", browser.count())
        assert (int(found[1]) if found else 0) == expected, text


def test_more_images_come_on_request_and_keep_the_keyboards_place(browser, write_run):
    browser.open(write_report(write_run(), picture))
    assert len(browser.shown()) == 12
    assert browser.count() == "20 images, first 12 shown"
    thirteenth = browser.run("return document.querySelectorAll('.card')[12].dataset.id")
    browser.click("#show-more")
    assert len(browser.shown()) == 20
    assert browser.run("return document.activeElement.dataset.id") == thirteenth
    assert not browser.run("return document.querySelector('#more').checkVisibility()")


def test_everything_can_be_reached_with_the_keyboard(browser, write_run):
    from selenium.webdriver.common.keys import Keys

    browser.open(write_report(write_run(), picture))
    reached = []
    for _ in range(80):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        if browser.run("return document.activeElement === document.body"):
            break  # once round
        reached.append(
            browser.run(
                "const e = document.activeElement, s = getComputedStyle(e);"
                "const seen = e.matches('.segments input') ? getComputedStyle(e.nextSibling) : s;"
                "return [e.id || e.className.baseVal || e.textContent, seen.outlineStyle]"
            )
        )
    names = [name for name, _ in reached]
    assert names[0] == "Skip to content"
    for control in ("theme", "query", "sort-by", "measure", "least", "below", "show-more", "plot"):
        assert control in names, control
    assert [name for name, outline in reached if outline == "none"] == []


def test_charts_are_read_with_arrow_keys_and_pointer(browser, write_run):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.open(write_report(write_run(), picture))
    plot = browser.driver.find_element(By.CSS_SELECTOR, ".plot")
    readout = browser.driver.find_element(By.CSS_SELECTOR, "#curves .readout")
    at_rest = readout.text
    plot.send_keys(Keys.HOME)
    assert "at step 5" in readout.text.replace("\n", " ")
    assert "0.600" in readout.text  # 3 / 5
    spoken = browser.run("return document.querySelector('#curves [aria-live]').textContent")
    assert spoken == "Step 5: training 0.600, validation –"
    plot.send_keys(Keys.ARROW_RIGHT)
    assert "0.300" in readout.text
    browser.run("document.activeElement.blur()")
    assert readout.text == at_rest
    ActionChains(browser.driver).move_to_element(plot).perform()
    steps = range(5, 65, 5)
    assert any(f"at step {step}" in readout.text.replace("\n", " ") for step in steps[3:8])
    ActionChains(browser.driver).move_to_element(readout).perform()
    assert readout.text == at_rest


def test_dark_and_light_follow_the_system_and_the_button(browser, write_run):
    path = write_report(write_run(), picture)
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    browser.theme("dark")
    browser.open(path)
    dark = browser.run(ground)
    browser.shoot("report-dark")
    browser.theme("light")
    light = browser.run(ground)
    assert brightness(dark) < 40 < 215 < brightness(light)
    pressed = "return document.querySelector('#theme').getAttribute('aria-pressed')"
    assert browser.run(pressed) == "false"
    browser.click("#theme")
    assert (browser.run(ground), browser.run(pressed)) == (dark, "true")
    browser.open(path)
    assert browser.run(ground) == dark, "the choice is kept"
    browser.click("#theme")
    assert browser.run(ground) == light
    browser.run("localStorage.clear()")


def brightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_legible(browser, write_run, theme):
    browser.theme(theme)
    browser.open(write_report(write_run(), picture))
    pairs = browser.run(
        """const ground = e => { for (; e; e = e.parentElement) {
             const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } };
           return [".lede", ".way", ".score small", ".score b", ".intro", ".intro mark", ".tag",
             ".caption", ".reference", ".scores dt", ".scores dd", "#count", "#show-more", ".id",
             ".segments span", "figcaption", ".pairs th", "footer", ".label", ".now dt"]
             .map(s => document.querySelector(s))
             .map(e => [e.className || e.tagName, getComputedStyle(e).color, ground(e)])"""
    )
    for name, ink, paper in pairs:
        a, b = sorted((luminance(ink), luminance(paper)))
        assert (b + 0.05) / (a + 0.05) >= 4.5, (name, ink, paper)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [float(c) / 255 for c in re.findall(r"[\d.]+", colour)[:3]]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_at_any_width(browser, write_run, width):
    rows = rows_of(write_run())
    rows[0]["prediction"] = rows[0]["image_id"] = "W" * 300
    a, b = write_run("a", predictions=rows), write_run("b", predictions=rows)
    browser.size(width, 844)
    for name, path in (
        ("report", write_report(a, picture, "t" * 200)),
        ("comparison", compare_runs([a, b], picture)),
    ):
        browser.open(path)
        browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        wide = browser.run("return document.documentElement.scrollWidth")
        assert wide <= width, name
        browser.shoot(f"{name}-{width}")
        assert browser.complaints() == []


def test_two_thousand_images(browser, write_run, tmp_path):
    rows = [
        {
            "image_id": f"{i:05}",
            "prediction": f"caption number {i}",
            "references": [f"reference {i % 7}"],
            "score": -i / 2000,
            "metrics": {"wer": (i * 7919 % 2000) / 1000},
        }
        for i in range(2000)
    ]
    path = write_report(write_run(predictions=rows), picture)
    assert path.stat().st_size < 25e6
    browser.open(path)
    assert browser.count() == "2,000 images, first 12 shown"
    browser.set("#sort-by", "1")
    assert browser.shown() == [f"{i:05}" for i in range(1999, 1987, -1)]
    browser.set("#query", "number 77")
    browser.click("#show-all")
    expected = [f"{i:05}" for i in range(1999, -1, -1) if "77" in str(i)]
    assert browser.shown() == expected
    browser.reset()
    browser.click("#show-all")
    assert len(browser.shown()) == 2000
    browser.run("document.querySelectorAll('.card')[1500].scrollIntoView({behavior: 'instant'})")
    loaded = browser.driver.execute_async_script(
        "const image = document.querySelectorAll('.card img')[1500];"
        "image.decode().then(() => arguments[0](image.naturalWidth))"
    )
    assert loaded == 160
    browser.shoot("report-2000")
    assert browser.complaints() == []


def test_hostile_text_runs_nothing_and_loads_nothing(browser, write_run):
    evil = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
    evil += "<svg onload='window.pwned = 1'>\"><iframe src='http://192.0.2.1/'></iframe>"
    rows = [{"image_id": evil, "prediction": evil, "references": [evil], "metrics": {evil: 1}}]
    a = write_run("a", predictions=rows, run={"warnings": [evil]}, metrics={evil: 1.0})
    for path in (write_report(a, picture, evil), compare_runs([a, a], picture)):
        browser.open(path)
        browser.set("#query", "pwned")
        assert browser.shown() == [evil]
        assert browser.run("return window.pwned") is None
        assert browser.run("return document.querySelectorAll('iframe, [onerror]').length") == 0
        assert browser.complaints() == []


def test_the_policy_stops_what_is_not_ours(browser, write_run):
    browser.open(write_report(write_run(), picture))
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.foreign = 1';"
        "document.body.append(s); new Image().src = 'http://192.0.2.1/x.png'"
    )
    assert browser.run("return window.foreign") is None
    assert any("Content Security Policy" in said for said in browser.complaints())


def test_without_scripts_every_image_is_there(browser, write_run):
    path = write_report(write_run(), picture)
    browser.scripts(False)
    browser.open(path)
    browser.shoot("report-no-script")
    browser.scripts(True)
    # the page's own scripts did not run; ours may look at it
    assert len(browser.shown()) == 20
    assert not browser.run("return document.querySelector('#filters').checkVisibility()")
    assert browser.run("return document.querySelector('noscript').textContent.length") > 0


def test_less_motion_where_less_is_asked_for(browser, write_run):
    path = write_report(write_run(), picture)
    behaviour = "return getComputedStyle(document.documentElement).scrollBehavior"
    found = {}
    for wish in ("reduce", "no-preference"):
        feature = {"name": "prefers-reduced-motion", "value": wish}
        browser.command("Emulation.setEmulatedMedia", features=[feature])
        browser.open(path)
        found[wish] = browser.run(behaviour)
    assert found == {"reduce": "auto", "no-preference": "smooth"}


def test_a_comparison_sorts_by_the_change(browser, write_run):
    rows = rows_of(write_run())
    other = json.loads(json.dumps(rows))
    for i, row in enumerate(other):
        row["metrics"]["wer"] = round(row["metrics"]["wer"] + (i * 7 % 20 - 10) / 10, 3)
    a, b = write_run("a", predictions=rows), write_run("b", predictions=other)
    browser.open(compare_runs([a, b], picture))
    browser.click("#show-all")
    changes = {r["image_id"]: (i * 7 % 20 - 10) / 10 for i, r in enumerate(rows)}
    assert [changes[i] for i in browser.shown()] == sorted(changes.values(), reverse=True)
    browser.click("[value=best]")
    browser.click("#show-all")
    assert [changes[i] for i in browser.shown()] == sorted(changes.values())
    browser.shoot("comparison")
