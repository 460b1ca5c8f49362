"""From a template to one file that needs no network: style and script inlined, text escaped."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import captionkit
from captionkit.checkpoints import write_atomically
from captionkit.errors import OutputError

_TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, path: Path, context: Mapping[str, Any]) -> Path:
    """Render a template and put it at `path` in one move. Raises OutputError."""
    inlined = {
        name: (_TEMPLATES / name).read_text(encoding="utf-8").strip()
        for name in ("style.css", "early.js", "script.js")
    }
    html = (
        _environment()
        .get_template(template)
        .render(
            context,
            style=inlined["style.css"],
            early_script=inlined["early.js"],
            script=inlined["script.js"],
            policy=_policy(inlined),
            version=captionkit.__version__,
        )
    )
    return _write(path, html)


@functools.cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _policy(inlined: Mapping[str, str]) -> str:
    """A Content-Security-Policy that allows our own style and scripts, data URIs, nothing else."""
    hashes = {
        name: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for name, text in inlined.items()
    }
    return (
        "default-src 'none'; img-src data:; "
        f"style-src {hashes['style.css']}; "
        f"script-src {hashes['early.js']} {hashes['script.js']}; "
        "base-uri 'none'; form-action 'none'"
    )


def _write(path: Path, html: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html)
    except OSError as error:
        raise OutputError(
            f"Cannot write the report {path}: {error.strerror}. An earlier one is untouched. "
            "Make room or choose a writable place, then run `captionkit report` on the run."
        ) from None
    return path
