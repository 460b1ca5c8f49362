"""Runs to report on, and a parser that sees a page as a browser's first pass does."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from captionkit.recipe import Recipe

VOID = {"meta", "link", "img", "input"}
WORDS = "a red blue dog cat bird sits runs on the mat under tree with hat".split()


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
            suffix = {"recipe": "yaml", "history": "jsonl", "predictions": "jsonl"}.get(stem, "json")
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
        {"step": step, "epoch": step / 10, "loss": 3 / step, "learning_rate": 1e-4 * (1 - step / 60)}
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
        references = [" ".join(rng.choices(WORDS, k=8)) for _ in range(3)]
        row = {
            "image_id": f"image-{i}.png",
            "prediction": " ".join(rng.choices(WORDS, k=7)),
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
