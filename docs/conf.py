"""Sphinx: furo, MyST, autodoc; warnings are errors."""

project = "captionkit"
author = "The captionkit authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "captionkit"
html_static_path = []
exclude_patterns = ["_build"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
default_role = "code"
nitpicky = False
