"""The fixed set of broken files, each in a folder of its own name, and datasets to examine."""

from __future__ import annotations

import json
import os

import pytest
from broken_images import CASES


@pytest.fixture(scope="session")
def broken(tmp_path_factory):
    """The folder with all broken files; a caption stands beside each."""
    folder = tmp_path_factory.mktemp("broken")
    for number, case in enumerate(CASES):
        path = case.write(folder)
        text = os.path.splitext(path)[0] + ".txt"
        with open(text, "w", encoding="utf-8") as file:
            file.write(f"picture number {number}\n")
    return folder


@pytest.fixture
def listed(tmp_path):
    """Writes images (name to bytes) and metadata.jsonl (name to captions); returns the folder."""

    def write(images, captions, folder="data"):
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        for name, content in images.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        rows = [json.dumps({"file_name": n, "caption": c}) for n, c in captions.items()]
        (root / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        return root

    return write
