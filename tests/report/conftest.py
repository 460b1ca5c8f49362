"""Runs to report on, a parser of the pages, and a real browser that opens them."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from captionkit.recipe import Recipe

VOID = {"meta", "link", "img", "input"}
WORDS = "a red blue dog cat bird sits runs on the mat under tree with hat"


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: needs Chromium, its driver and selenium")


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parent: Element | None = None
    children: list = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, tag=None, **attributes):
        """Descendants by tag and attributes; `class_` matches one class."""
        wanted_class = attributes.pop("class_", None)
        for child in self.children:
            if isinstance(child, str):
                continue
            classes = (child.attributes.get("class") or "").split()
            if (
                tag in (None, child.tag)
                and (wanted_class is None or wanted_class in classes)
                and all(child.attributes.get(k) == v for k, v in attributes.items())
            ):
                yield child
            yield from child.all(
                tag, **attributes, **({"class_": wanted_class} if wanted_class else {})
            )

    def one(self, tag=None, **attributes):
        found = list(self.all(tag, **attributes))
        assert len(found) == 1, f"{len(found)} of {tag} {attributes}"
        return found[0]


class PageParser(HTMLParser):
    """Builds a tree and insists that every element is closed."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = self.open = Element("document", {})

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs), self.open)
        assert len(attrs) == len(element.attributes), f"an attribute twice in {tag}"
        self.open.children.append(element)
        if tag not in VOID:
            self.open = element

    def handle_startendtag(self, tag, attrs):
        self.open.children.append(Element(tag, dict(attrs), self.open))

    def handle_endtag(self, tag):
        assert self.open.tag == tag, f"</{tag}> inside <{self.open.tag}>"
        self.open = self.open.parent

    def handle_data(self, data):
        self.open.children.append(data)


def parse(path: Path) -> Element:
    parser = PageParser()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open is parser.root, f"<{parser.open.tag}> is never closed"
    return parser.root


@pytest.fixture
def page():
    return parse


@pytest.fixture
def write_run(tmp_path):
    """Writes the files of a run; a file that is given as None is left out."""

    def write(name="run", **files) -> Path:
        folder = tmp_path / name / "captionkit"
        folder.mkdir(parents=True, exist_ok=True)
        for stem, value in (default_run() | files).items():
            suffix = {"recipe": "yaml", "history": "jsonl", "predictions": "jsonl"}.get(
                stem, "json"
            )
            if value is None:
                continue
            if suffix == "jsonl" and not isinstance(value, str):
                value = "".join(json.dumps(row) + "\n" for row in value)
            text = value if isinstance(value, str) else json.dumps(value)
            (folder / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
        return folder

    return write


def default_run(images: int = 20, seed: int = 0) -> dict:
    history = [
        {
            "step": step,
            "epoch": step / 10,
            "loss": 3 / step,
            "learning_rate": 1e-4 * (1 - step / 60),
        }
        for step in range(5, 65, 5)
    ]
    for row in history[3::4]:
        row |= {"eval_loss": row["loss"] + 0.1, "eval_wer": 0.5 / row["step"], "eval_rougeL": 60.0}
    return {
        "recipe": Recipe().replace(model="git-tiny", dataset="critters", epochs=6).to_yaml(),
        "history": history,
        "metrics": {"loss": 0.41234, "wer": 0.0712, "rouge1": 93.0, "rougeL": 91.23},
        "predictions": predictions(images, seed),
        "run": {
            "command": "finetune",
            "started": "2026-11-22T09:14:00+00:00",
            "seconds": 192.4,
            "backend": "torch",
            "device": "cpu",
            "parameters": 912384,
            "trainable": 912384,
            "images_per_second": 93.4,
            "train_images": 750,
            "versions": {"captionkit": "0.1.0", "torch": "2.13.0"},
            "warnings": [],
            "dataset": "critters",
        },
    }


def predictions(images: int, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    rows = []
    for i in range(images):
        references = [" ".join(rng.choices(WORDS.split(), k=8)) for _ in range(3)]
        row = {
            "image_id": f"image-{i}.png",
            "prediction": " ".join(rng.choices(WORDS.split(), k=7)),
            "score": -rng.random(),
            "references": references,
            "metrics": {"wer": round(rng.random(), 3), "rougeL": round(100 * rng.random(), 2)},
        }
        if i < 4:
            row["before"] = "the the the"
        rows.append(row)
    return rows


@pytest.fixture
def pictures():
    """Small pictures, each of its own colour."""
    return lambda i: Image.new("RGB", (48, 32), (i * 37 % 256, i * 91 % 256, i * 13 % 256))


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# with less motion: a page that scrolls smoothly moves away from under a pointer that came early
FLAGS = """
    --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars --force-color-profile=srgb
    --force-prefers-reduced-motion
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromedriver = shutil.which("chromedriver")
    if not (CHROMIUM and chromedriver):
        pytest.skip("Chromium and chromedriver are not on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


class Browser:
    """A page in the browser, with what the tests ask of it."""

    def __init__(self, driver, folder: Path):
        self.driver, self.folder = driver, folder
        self.size(1280, 900)
        self.theme("light")
        self.scripts(True)

    def open(self, path: Path):
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(path.as_uri())
        return self

    def run(self, code: str, *arguments):
        return self.driver.execute_script(code, *arguments)

    def command(self, name: str, **arguments):
        return self.driver.execute_cdp_cmd(name, arguments)

    def size(self, width: int, height: int):
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def theme(self, name: str):
        feature = {"name": "prefers-color-scheme", "value": name}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def scripts(self, allowed: bool):
        self.command("Emulation.setScriptExecutionDisabled", value=not allowed)

    def set(self, selector: str, value: str):
        self.run(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('input', {bubbles: true}))",
            selector, value,
        )  # fmt: skip

    def click(self, selector: str):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def reset(self):
        self.click("[type=reset]")
        self.driver.execute_async_script("setTimeout(arguments[0], 50)")

    def shown(self) -> list[str]:
        return self.run(
            "return [...document.querySelectorAll('.card')].filter(c => c.checkVisibility())"
            ".map(c => c.dataset.id)"
        )

    def count(self) -> str:
        return self.run("return document.querySelector('#count').textContent")

    def shoot(self, name: str):
        folder = Path(os.environ.get("CAPTIONKIT_SCREENSHOTS") or self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        assert self.driver.save_screenshot(str(path))
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors()) > 20
        return path

    def complaints(self) -> list[str]:
        """Messages of the console, and requests that are not the page itself or data in it."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    said.append(f"request of {url}")
        return said


@pytest.fixture
def browser(driver, tmp_path):
    return Browser(driver, tmp_path)
