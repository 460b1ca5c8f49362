"""The pages, and the commands in them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# behind it comes what a shell does with the command or its output
_SHELL = {">", "<", "|", "||", "&", "&&", ";"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    """A page, or of a notebook its text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        return "\n\n".join("".join(cell["source"]) for cell in cells)
    return text


def prompts(text: str) -> list[str]:
    """What stands behind each `$`, continued lines as one."""
    joined = re.sub(r"\\\n\s*", "", text)
    return re.findall(r"^ *\$ (.*)$", joined, flags=re.MULTILINE)


def captionkit_arguments(prompt: str) -> list[str] | None:
    """The arguments of `captionkit` in what is typed at a prompt; None if it is another program."""
    words = shlex.split(prompt, comments=True)
    for inner in words:  # of bash -c '...'
        if " captionkit " in inner:
            return captionkit_arguments(inner)
    if "captionkit" not in words or words[0] in ("pip", "python"):
        return None
    arguments = words[words.index("captionkit") + 1 :]
    ends = (i for i, word in enumerate(arguments) if word in _SHELL)
    return arguments[: next(ends, None)]
