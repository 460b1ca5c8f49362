"""Captions as words: lower case, no punctuation, as the word error rate sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST = 120  # words; longer texts are not aligned


@dataclass(frozen=True)
class Piece:
    """A run of words that stand in both texts, or only in this one."""

    text: str
    differs: bool


@dataclass(frozen=True)
class Aligned:
    """A caption beside its nearest reference; `index` is that reference's place."""

    index: int
    caption: tuple[Piece, ...]
    reference: tuple[Piece, ...]


def words(text: str) -> list[str]:
    """The words of a text."""
    return [word for word in map(_normal, text.split()) if word]


def align(caption: str, references: Sequence[str]) -> Aligned | None:
    """Align a caption with the reference that takes the fewest word edits (the first such)."""
    if not references:
        return None
    own = caption.split()
    plain = [_normal(word) for word in own]
    best: tuple[int, int, set[int], set[int]] | None = None
    for index, reference in enumerate(references):
        theirs = reference.split()
        if len(own) > _LONGEST or len(theirs) > _LONGEST:
            continue
        edits, extra, missing = _edits(plain, [_normal(word) for word in theirs])
        if best is None or edits < best[0]:
            best = (edits, index, extra, missing)
    if best is None:
        return Aligned(0, (Piece(caption, False),), (Piece(references[0], False),))
    _, index, extra, missing = best
    return Aligned(index, _pieces(own, extra), _pieces(references[index].split(), missing))


def _normal(word: str) -> str:
    return re.sub(r"[\W_]+", "", word.lower())


def _edits(own: list[str], theirs: list[str]) -> tuple[int, set[int], set[int]]:
    """Levenshtein distance over words, and the places on each side that did not match.

    A word that is punctuation only is empty here: it costs nothing and never differs.
    """
    a = [i for i, word in enumerate(own) if word]
    b = [j for j, word in enumerate(theirs) if word]
    table = [list(range(len(b) + 1))]
    for row, i in enumerate(a, start=1):
        above, line = table[-1], [row]
        for column, j in enumerate(b, start=1):
            differs = own[i] != theirs[j]
            line.append(min(above[column - 1] + differs, above[column] + 1, line[column - 1] + 1))
        table.append(line)
    extra, missing = set(a), set(b)
    row, column = len(a), len(b)
    while row and column:
        i, j = a[row - 1], b[column - 1]
        here = table[row][column]
        if own[i] == theirs[j] and here == table[row - 1][column - 1]:
            extra.discard(i)
            missing.discard(j)
            row, column = row - 1, column - 1
        elif here == table[row - 1][column - 1] + 1:
            row, column = row - 1, column - 1
        elif here == table[row - 1][column] + 1:
            row -= 1
        else:
            column -= 1
    return table[-1][-1], extra, missing


def _pieces(tokens: list[str], different: set[int]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for place, token in enumerate(tokens):
        differs = place in different
        if pieces and pieces[-1].differs == differs:
            pieces[-1] = Piece(f"{pieces[-1].text} {token}", differs)
        else:
            pieces.append(Piece(token, differs))
    return tuple(pieces)
