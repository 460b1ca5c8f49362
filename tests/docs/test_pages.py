"""Every block of code in the pages runs, on small data, from top to bottom of a page.

Blocks of Python share a namespace. Of commands those of captionkit run, but for what downloads; a
block that is not to run is marked in the page: <!-- skip: next "reason" -->. tests/docs/
test_commands.py parses all of them.
"""

from __future__ import annotations

from pathlib import Path
from unittest import SkipTest

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")
sybil = pytest.importorskip("sybil")

from doc_pages import PAGES, captionkit_arguments, name, prompts  # noqa: E402 (after the skips)
from sybil import Sybil  # noqa: E402
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser  # noqa: E402

import captionkit.cli  # noqa: E402

MOST_SKIPPED = 8


def run_commands(example) -> None:
    for prompt in prompts(example.parsed):
        arguments = captionkit_arguments(prompt)
        whole = arguments and "..." not in arguments and prompt.startswith("captionkit")
        if whole and arguments[0] != "download":
            status = captionkit.cli.main(arguments)
            assert status == 0, f"{prompt}: status {status}"


def write_recipe(example) -> None:
    first, _, _ = example.parsed.partition("\n")
    Path(first.removeprefix("# ")).write_text(example.parsed)


PARSER = Sybil(
    parsers=[
        PythonCodeBlockParser(),
        CodeBlockParser("console", run_commands),
        CodeBlockParser("yaml", write_recipe),
        SkipParser(),
    ]
)


@pytest.mark.parametrize("page", [page for page in PAGES if "```" in page.read_text()], ids=name)
@pytest.mark.filterwarnings("default")
def test_blocks_run(page, here):
    for example in PARSER.parse(page).examples():
        try:
            example.evaluate()
        except SkipTest:
            continue


def test_few_blocks_are_skipped():
    marks = [
        line for page in PAGES for line in page.read_text().split("\n") if "skip: next" in line
    ]
    assert all('"' in mark for mark in marks), "each with its reason"
    assert len(marks) <= MOST_SKIPPED
