"""Text that others wrote, on a terminal and in a spreadsheet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.printable import csv_cell, from_csv_cell, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog\non a\tmat", "a dog\non a\tmat"),
        ("Kätzchen 😀 猫", "Kätzchen 😀 猫"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("over\rwritten\x08", "over\\rwritten\\x08"),
        ("cod\u202etxt.exe\u2066", "cod\\u202etxt.exe\\u2066"),
        ("a\u2028b\0c\ud800", "a\\u2028b\\x00c\\ud800"),
    ],
)
def test_a_terminal_obeys_nothing(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_what_is_shown_can_be_printed_anywhere(text):
    shown = printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert shown.encode().decode() == shown


def test_what_is_very_long_is_cut():
    shown = printable("x" * 10**6)
    assert len(shown) < 21_000
    assert shown.endswith("... (1,000,000 characters)")


@given(st.one_of(st.text(), st.text("=+-@'\t\r1e.")))
def test_cells_are_no_formulas_and_come_back(text):
    cell = csv_cell(text)
    is_number = cell.lstrip("-").replace(".", "").replace("e-", "").replace("e", "").isdigit()
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or is_number
    assert from_csv_cell(cell) == text
