"""Where a run's captions go for each format, and what is in there, read without captionkit."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet as pq
from conftest import spoken

FORMATS = ("txt", "metadata", "jsonl", "csv", "parquet")


def place_of(folder, kind):
    """The settings that send captions of a folder somewhere, and the place."""
    if kind in ("txt", "metadata"):
        path = folder / "metadata.jsonl" if kind == "metadata" else folder
        return {"format": kind}, path
    return {"output": str(folder.parent / f"out.{kind}")}, folder.parent / f"out.{kind}"


def captions_in(folder, kind):
    """{path below the folder: caption}, read without the code under test."""
    path = place_of(folder, kind)[1]
    if kind == "txt":
        found = {p.relative_to(folder): p.read_text("utf-8") for p in folder.rglob("*.txt")}
        return {str(p.with_suffix(".png")): text.removesuffix("\n") for p, text in found.items()}
    if not path.exists():
        return {}
    if kind == "parquet":
        rows = pq.read_table(path).to_pylist()
    elif kind == "csv":
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    image, caption = ("file_name", "text") if kind == "metadata" else ("image", "caption")
    assert len({row[image] for row in rows}) == len(rows), "an image has two rows"
    return {row[image].removeprefix(f"{folder.name}/"): row[caption] for row in rows}


def expected_of(folder):
    return {str(p.relative_to(folder)): spoken(p) for p in sorted(folder.rglob("*.png"))}
