"""Sphinx: furo, MyST and notebooks, autodoc; warnings are errors."""

from __future__ import annotations

import inspect
import re
from itertools import groupby
from typing import Any

project = "captionkit"
author = "The captionkit authors"
copyright = "The captionkit authors; Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
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
smartquotes_action = "qe"  # -- begins a flag
nitpicky = False


def _arguments_as_fields(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Our docstrings describe arguments as `name: text`; Sphinx wants fields, at the end."""
    names = "|".join(_names_of(obj))
    if not names:
        return
    begins = rf"(?:{names})(?:, \w+)*: "
    text, fields = [], []
    for empty, group in groupby(lines, key=lambda line: not line.strip()):
        paragraph = list(group)
        if empty or not re.match(begins, paragraph[0]):
            text += paragraph
            continue
        joined = " ".join(line.strip() for line in paragraph)
        for part in re.split(rf"(?:^|(?<=[.;] ))(?={begins}|Raises )", joined)[1:]:
            described, _, description = part.partition(": ")
            if part.startswith("Raises "):
                text += ["", part]
            else:
                fields += [f":param {one}: {description}" for one in described.split(", ")]
    lines[:] = [*text, "", *fields, ""]


def _names_of(obj: Any) -> list[str]:
    if not callable(obj):
        return []
    members = getattr(obj, "__annotations__", {}) if inspect.isclass(obj) else {}
    return [*inspect.signature(obj).parameters, *members]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _arguments_as_fields)
