"""The tutorials as they are stored: run to the end, small, and of no machine in particular."""

from __future__ import annotations

import json
import re

import pytest
from doc_pages import ROOT, TUTORIALS, name


@pytest.mark.parametrize("path", TUTORIALS, ids=name)
def test_stored_outputs(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) <= 300_000
    for number, cell in enumerate(json.loads(text)["cells"]):
        if cell["cell_type"] == "code":
            assert cell["execution_count"], f"cell {number} was not run"
            for output in cell["outputs"]:
                assert output["output_type"] != "error", f"cell {number}"
                said = json.dumps([output.get("text"), output.get("data", {}).get("text/plain")])
                assert not re.search(r"/tmp/|/home/|site-packages|Warning", said), f"cell {number}"


def test_all_tutorials_are_run_and_shown():
    names = {path.stem for path in TUTORIALS}
    run = (ROOT / "docs" / "tutorials" / "execute.py").read_text(encoding="utf-8")
    order = re.search(r"^ORDER = \((.*?)\)", run, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r'"(.+?)"', order[1])) == names
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^tutorials/(.+)$", index, flags=re.MULTILINE)) == names
