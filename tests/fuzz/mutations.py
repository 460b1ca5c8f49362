"""Hostile inputs: valid files with something done to them, and sheer noise.

An input is made from dice: bytes that hypothesis draws (and shrinks) in one piece, so that
thousands of inputs are made a second. A `Maker` turns dice into an input.
"""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

# What stands for text that `json.dumps` would not write.
RAW = {
    b'"@deep list@"': b"[" * 20_000 + b"]" * 20_000,
    b'"@deep object@"': b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    b'"@huge number@"': b"9" * 5000,
    b'"@large exponent@"': b"1e99999",
    b'"@not a number@"': b"NaN",
    b'"@endless@"': b"-Infinity",
}
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320,
    "", " ", "\0", "a\0b", "\ud800", "\udfff\ud83d", "\ufeff", "\u2028", "\u202e", "\x1b[2J\x9b31m",
    "a" * 3000, "../x.png", "/etc/passwd", "..", ".", "~", "http://127.0.0.1/x", "file:///etc/x",
    "=1+1", "'=1", "<script>", "[", "[1", '{"a": 1}', "nan", "1e999", "{}", "%s%n", "{0.__class__}",
    [], [[]], {}, {"": ""}, [None], [0] * 300, [""], ["a", 1], {"a": {"b": []}}, ["\ud800"],
    [[1, 2], [3, "4"]], {"\ud800": 1}, {"__class__": "x"}, {"bytes": None, "path": None},
    *(key.decode().strip('"') for key in RAW),
]  # fmt: skip
TOKENS = [
    b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\\ud800", b"\\u0000",
    b"\r", b"\n", b"\r\n", b"\x85", b"\xe2\x80\xa8", b"\t", b"\x1b[31m", b'"', b'""', b"'", b",",
    b";", b"{", b"}", b"[", b"]", b":", b"\\", b"/", b"../", b"null", b"NaN", b"-1", b"1e999",
    b"9" * 5000, b"[" * 5000, b'{"a":' * 5000, b"(" * 2000, b"\xff" * 40, b"\0" * 600, b"0x", b"#",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
           2**62, 2**63 - 1, 2**63, 2**64 - 1]  # fmt: skip
_HOW_MANY = (0, 1, 1, 1, 2, 2, 3, 4)  # changes to one input


class Dice:
    """Numbers from drawn bytes; all zeros are the plainest input."""

    SIZE = 96

    def __init__(self, drawn: bytes):
        self._left, self._drawn = drawn, drawn

    def roll(self, sides: int) -> int:
        """A number from 0 to below `sides`, which is at most 2**24."""
        if len(self._left) < 3:  # used up: go on with what follows from it
            self._drawn = hashlib.blake2b(self._drawn, digest_size=48).digest()
            self._left = self._drawn
        number, self._left = int.from_bytes(self._left[:3], "little"), self._left[3:]
        return number % sides

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[self.roll(len(choices))]


Maker = Callable[[Dice], Any]


def any_file(seeds: Sequence[bytes], tokens: Sequence[bytes] = (), document: Maker | None = None):
    """Valid files, valid files with bytes flipped, cut, repeated, overwritten, and noise.

    document: makes files of which some places hold something else.
    """
    dictionary = [*TOKENS, *tokens]

    def make(dice: Dice) -> bytes:
        form = dice.roll(20)
        if form == 19:
            return bytes(dice.roll(256) for _ in range(dice.roll(60)))
        structured = document is not None and form % 2
        content = bytearray(document(dice) if structured else dice.pick(seeds))
        for _ in range(dice.pick(_HOW_MANY) if not structured else max(0, dice.roll(6) - 3)):
            _change(content, dice, dictionary, seeds)
        return bytes(content)

    return make


def documents(
    seeds: Sequence[Any],
    dump: Callable[[Any], bytes] | None = None,
    values: Sequence[Any] = (),
) -> Maker:
    """JSON (or what `dump` writes) of a valid document of which some places hold something else.

    values: more of what those places may hold.
    """
    hostile = [*HOSTILE, *values]

    def make(dice: Dice) -> bytes:
        document = [copy.deepcopy(dice.pick(seeds))]
        for _ in range(dice.pick(_HOW_MANY)):
            _change_place(document, dice, hostile)
        return (dump or dumped)(document[0])

    return make


def lines(rows: Sequence[Any], values: Sequence[Any] = (), most: int = 4) -> Maker:
    """JSON lines, of which some hold something else."""
    row = documents(rows, values=values)
    valid = [dumped(one) for one in rows]

    def make(dice: Dice) -> bytes:
        return b"\n".join(
            dice.pick(valid) if dice.roll(3) else row(dice) for _ in range(dice.roll(most + 1))
        )

    return make


def dumped(document: Any) -> bytes:
    """JSON, in ASCII; what RAW names is put in as it is."""
    content = json.dumps(document).encode()
    for name, text in RAW.items():
        if name in content:
            content = content.replace(name, text)
    return content


class Twice(dict):
    """An object that is written with each key twice."""

    def items(self) -> Any:
        return [*super().items(), *super().items()]


# ---- one step ----------------------------------------------------------------------------------


def _change(content: bytearray, dice: Dice, tokens: Sequence[bytes], seeds: Sequence[bytes]):
    what, at = dice.roll(10), dice.roll(len(content) + 1)
    if what == 0 and at < len(content):
        content[at] ^= 1 << dice.roll(8)
    elif what == 1 and at < len(content):
        content[at] = dice.roll(256)
    elif what == 2:
        del content[at:]
    elif what == 3:
        del content[at : at + dice.roll(40)]
    elif what == 4:
        content[at:at] = content[at : at + dice.roll(60)] * (1 + dice.roll(3))
    elif what in (5, 6):
        content[at:at] = dice.pick(tokens)
    elif what == 7:
        other = dice.pick(seeds)
        content[at:] = other[dice.roll(len(other) + 1) :]
    else:  # a number of 1, 2, 4 or 8 bytes, in either order
        kind = dice.roll(4)
        number = dice.pick(NUMBERS) % 256 ** (2**kind)
        content[at : at + 2**kind] = struct.pack("><"[dice.roll(2)] + "BHIQ"[kind], number)


def _change_place(document: list[Any], dice: Dice, hostile: Sequence[Any]) -> None:
    """Do something at one place of a document, which is held in a list of one."""
    places: list[tuple[Any, Any]] = []
    left: list[Any] = [document]
    while left and len(places) < 400:
        holder = left.pop()
        for key in range(len(holder)) if isinstance(holder, list) else list(holder):
            places.append((holder, key))
            if isinstance(holder[key], (list, dict)):
                left.append(holder[key])
    holder, key = dice.pick(places)
    what, inside = dice.roll(10), holder[key]
    if what <= 4 or (holder is document and what < 7):
        holder[key] = copy.deepcopy(dice.pick(hostile))
    elif what == 5:
        del holder[key]
    elif what == 6 and isinstance(holder, dict):
        holder[str(dice.pick(hostile))[:40]] = holder.pop(key)
    elif what == 7 and isinstance(inside, dict):
        holder[key] = Twice(inside)
    elif what == 8:
        other, where = dice.pick(places)
        holder[key] = copy.deepcopy(other.get(where) if isinstance(other, dict) else other[:3])
    else:
        holder[key] = [inside, copy.deepcopy(dice.pick(hostile))]
