"""The Levenshtein distance between two sequences, by bit-parallel dynamic programming.

H. Hyyrö, "A bit-vector algorithm for computing Levenshtein and Damerau edit distances", 2003.
A column of the table is two integers of one bit a row, so a column costs a dozen operations.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def edit_distance(reference: Sequence[Hashable], prediction: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that turn one into the other."""
    if not reference or not prediction:
        return len(reference) + len(prediction)
    positions: dict[Hashable, int] = {}
    for row, item in enumerate(reference):
        positions[item] = positions.get(item, 0) | (1 << row)
    all_rows = (1 << len(reference)) - 1
    last_row = 1 << (len(reference) - 1)

    distance = len(reference)
    rises, falls = all_rows, 0  # where the column grows, or shrinks, from a row to the next
    for item in prediction:
        matches = positions.get(item, 0)
        diagonal = (((matches & rises) + rises) ^ rises) | matches | falls
        row_rises = falls | ~(diagonal | rises)
        row_falls = rises & diagonal
        if row_rises & last_row:
            distance += 1
        elif row_falls & last_row:
            distance -= 1
        row_rises = (row_rises << 1) | 1
        row_falls <<= 1
        rises = (row_falls | ~(diagonal | row_rises)) & all_rows
        falls = row_rises & diagonal & all_rows
    return distance
