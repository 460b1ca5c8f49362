"""Text that others wrote, for a terminal and for a spreadsheet: shown, never obeyed."""

from __future__ import annotations

import re
from typing import Any

_LONGEST = 20_000  # characters of one message
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet would compute
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")  # such as a score that was read as text


def printable(text: str) -> str:
    """Text of which a terminal obeys nothing but line feeds and tabs.

    Control characters (and with them ANSI escapes), marks that turn the direction of writing, and
    lone surrogates are spelled out, as in `\\x1b`. What is very long is cut.
    """
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ... ({len(text):,} characters)"
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: ' in front, as OWASP's CSV page advises."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def from_csv_cell(value: str) -> str:
    """What `csv_cell` was given."""
    return value[1:] if value.startswith("'") and _FORMULA.match(value) else value
