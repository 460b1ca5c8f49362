"""The page of `captionkit doctor`: parsed, and in a real browser."""

from __future__ import annotations

import pytest
from broken_images import CASES, SCENE, encoded

from captionkit.cli import main
from captionkit.doctor.findings import Diagnosis, Item, in_order
from captionkit.doctor.listing import Entry, Listing
from captionkit.doctor.page import write_page
from captionkit.doctor.tokens import TokenCounts
from captionkit.errors import OutputError

EVIL = "<script>alert(1)</script> & \"quotes\" 'single' \u202eright to left"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of the broken set, with one caption that wants to be markup."""
    folder = tmp_path_factory.mktemp("set") / "photos <b>"
    folder.mkdir()
    for number, case in enumerate(CASES):
        path = case.write(folder)
        text = EVIL if case.name == "good.png" else f"picture number {number} \u00c3\u00a9"
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    path = folder.parent / "page.html"
    assert main(["doctor", str(folder), "--html", str(path), "--model", "git-tiny"]) == 1
    return path


def many(count, kind="tiny"):
    """A diagnosis with so many cases of a kind, each with a picture of its own."""
    contents = [encoded(SCENE[:24, i : i + 24], "PNG") for i in range(60)]
    entries = [
        Entry("train", f"{i}.png", (f"caption {i}",), lambda i=i: contents[i % 60])
        for i in range(count)
    ]
    items = [Item((entry.image_id,), "24 x 24 pixels", (i,)) for i, entry in enumerate(entries)]
    return Diagnosis("many", {"train": (count, count)}, in_order({kind: items})), Listing(
        "many", entries
    )


def test_the_page_is_whole_and_says_what_was_found(written, page):
    root = page(written)
    assert "photos <b>" in root.one("h1").text
    headings = [h.text for h in root.all("h3")]
    for words in ("Files that end too early 6 files", "Empty files (0 bytes) 1 file"):
        assert any(words in " ".join(h.split()) for h in headings)
    for image in root.all("img"):
        assert image.attributes["alt"].strip()
        assert image.attributes["src"].startswith("data:image/")
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    links = [a.attributes["href"] for a in root.all("a")]
    assert all(href[0] == "#" and (href == "#top" or href[1:] in ids) for href in links)
    assert "Tokens per caption" in headings


def test_captions_stay_text(written, page):
    text = written.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    alts = [image.attributes["alt"] for image in page(written).all("img")]
    assert any(EVIL in alt for alt in alts)


def test_pictures_are_at_most_the_limit_and_the_rest_is_counted(tmp_path, page):
    path = write_page(tmp_path / "page.html", *many(130), limit=100)
    root = page(path)
    assert len(list(root.all("img"))) == 100
    assert "30 more are not on this page" in " ".join(root.text.split())
    # cases without pictures are lines, of which there may be more
    diagnosis, listing = many(700, "missing")
    root = page(write_page(path, diagnosis, listing, limit=100))
    assert not list(root.all("img"))
    assert "200 more are not on this page" in " ".join(root.text.split())


def test_a_page_of_nothing(tmp_path, page):
    tokens = TokenCounts("m", {}, None, 0.0)
    diagnosis = Diagnosis("clean", {"train": (2, 2)}, (), tokens, {}, ("A remark.",))
    root = page(write_page(tmp_path / "page.html", diagnosis, Listing("clean")))
    assert "Nothing found" in root.text
    assert "A remark." in root.text


def test_a_page_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write the report"):
        write_page(tmp_path / "file" / "page.html", *many(1))


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (320, 640)])
def test_it_fits_every_screen_in_both_themes(browser, written, theme, width, height):
    browser.theme(theme)
    browser.size(width, height)
    browser.open(written)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = browser.run(
        "return [...document.querySelectorAll('main *')]"
        ".filter(e => e.checkVisibility() && !e.closest('.hushed, svg'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    assert wide == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.shoot(f"data-{theme}-{width}")
    assert browser.complaints() == []


@pytest.mark.browser
def test_it_works_without_a_script_and_with_two_thousand_cases(browser, tmp_path):
    path = write_page(tmp_path / "page.html", *many(2000))
    assert path.stat().st_size < 20e6
    browser.scripts(False)
    browser.open(path)
    browser.scripts(True)
    count = "return [...document.querySelectorAll('.card')].filter(c => c.checkVisibility()).length"
    assert browser.run(count) == 8
    browser.run("document.querySelector('details').open = true")
    assert browser.run(count) == 2000
    loaded = browser.run(
        "const last = [...document.querySelectorAll('img')].at(-1); last.loading = 'eager';"
        "return last.decode().then(() => last.naturalWidth)"
    )
    assert loaded == 24
    assert browser.complaints() == []
