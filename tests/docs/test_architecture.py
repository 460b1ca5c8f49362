"""The page on the architecture names files and folders that exist, and leaves out no folder."""

from __future__ import annotations

import re

from doc_pages import ROOT

PACKAGE = ROOT / "captionkit"
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_files_exist():
    named = set(re.findall(r"`(?:\w+/)*(\w+\.py)`", TEXT))
    assert len(named) > 50
    assert named <= {path.name for path in PACKAGE.rglob("*.py")}


def test_every_folder_is_named():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert len(folders) > 8
    assert folders <= set(re.findall(r"(\w+)/", TEXT))
