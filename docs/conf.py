"""Sphinx: furo, MyST and notebooks, autodoc; warnings are errors."""

project = "captionkit"
author = "The captionkit authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `nox -s examples` runs the tutorials; what they store is shown
html_theme = "furo"
html_title = "captionkit"
html_static_path = []
exclude_patterns = ["_build"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
default_role = "code"
nitpicky = False


def _arguments_as_list(app, what, name, obj, options, lines):
    """Our docstrings describe arguments as `name: text`, indented below; Sphinx wants a list."""
    import re

    result = []
    for line in lines:
        item = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if item and (not result or result[-1] == "" or result[-1].startswith(("- ", "  "))):
            result.append(f"- **{item[1]}**: {item[2]}")
        elif line.startswith("    ") and result and result[-1].startswith(("- ", "  ")):
            result.append("  " + line.strip())
        else:
            if result and result[-1].startswith(("- ", "  ")) and line:
                result.append("")
            result.append(line)
    lines[:] = result


def setup(app):
    app.connect("autodoc-process-docstring", _arguments_as_list)
