"""Sphinx: furo, MyST and notebooks, autodoc; warnings are errors."""

from __future__ import annotations

import inspect
import re
from itertools import groupby
from typing import Any

project = "captionkit"
author = "The captionkit authors"
copyright = "The captionkit authors; Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `nox -s examples` runs the tutorials; what they store is shown
html_theme = "furo"
html_title = "captionkit"
html_static_path = ["_static"]
html_css_files = ["captionkit.css"]
exclude_patterns = ["_build"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
default_role = "code"
nitpicky = False

ARGUMENT = r"\w+(?:, \w+)*: "


def _arguments_as_fields(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Our docstrings describe arguments as `name: text`; Sphinx wants fields, at the end."""
    known = _names_of(obj)
    text, fields, others = [], [], []
    for empty, group in groupby(lines, key=lambda line: not line.strip()):
        paragraph = list(group)
        if empty or not re.match(ARGUMENT, paragraph[0]):
            text += paragraph
            continue
        joined = " ".join(line.strip() for line in paragraph)
        for part in re.split(rf"(?:^|(?<=[.;] ))(?={ARGUMENT})", joined):
            names, _, description = part.partition(": ")
            for one in filter(None, names.split(", ")):
                if one in known:
                    fields.append(f":param {one}: {description}")
                else:
                    others.append(f"- **{one}**: {description}")
    lines[:] = [*text, "", *others, "", *fields, ""]


def _names_of(obj: Any) -> set[str]:
    try:
        return set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):  # a property or a protocol
        return set()


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _arguments_as_fields)
