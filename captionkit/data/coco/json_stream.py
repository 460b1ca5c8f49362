"""The arrays of a large JSON object in pieces, so that the file is never in memory as a whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator
from typing import IO, Any

_CHUNK = 2**20  # bytes
_LARGEST = 2**26  # characters of one item; a caption with all that goes with it has a few hundred
_SPACE = re.compile(r"[ \t\n\r]*")
_SEPARATOR = re.compile(r"[ \t\n\r]*([,\]])[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def array_batches(file: IO[bytes], wanted: Collection[str]) -> Iterator[tuple[str, list[Any]]]:
    """(name, some of its items) for the arrays of these names in a JSON object, to their ends.

    An array that is empty gives one empty list; other values are passed over. Raises ValueError
    for what is not JSON, or not such an object.
    """
    text = _Text(file)
    text.expect("{")
    going_on = text.next() != "}"
    if not going_on:
        text.expect("}")
    while going_on:
        name = text.value()
        text.expect(":")
        if name in wanted:
            text.expect("[", f'"{name}" should be a list')
            for batch in text.rest_of_array():
                yield name, batch
        else:
            text.value()
        going_on = text.expect(",}") == ","
    if text.next():
        raise text.wrong("there is more after the end of the object")


class _Text:
    """A position in a file, and the part of it that lies around there."""

    def __init__(self, file: IO[bytes]) -> None:
        # no TextIOWrapper: that closes the file when it is collected
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self._part, self._at, self._before = "", 0, 0

    def next(self) -> str:
        """The next character that is not white space, which is not passed; "" at the end."""
        while True:
            self._at = _end(_SPACE.match(self._part, self._at))
            if self._at < len(self._part):
                return self._part[self._at]
            if not self._more():
                return ""

    def expect(self, characters: str, otherwise: str = "") -> str:
        """Pass one of these characters and return it."""
        found = self.next()
        if not found or found not in characters:
            raise self.wrong(otherwise or f"expected {' or '.join(characters)}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Pass one value and return it."""
        while True:
            self.next()
            try:
                value, end = _decode(self._part, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if not self._more():
                    raise self.wrong(_reason(error)) from None
                continue
            # a number at the end of the part may go on
            if end < len(self._part) or not self._more():
                self._at = end
                return value

    def rest_of_array(self) -> Iterator[list[Any]]:
        """The items up to the closing bracket, which is passed, in lists."""
        if self.next() == "]":
            self._at += 1
            yield []
            return
        while True:
            self.next()
            part, at, items = self._part, self._at, []
            reason, closed = "expected , or ] after a value", False
            try:
                while not closed:
                    item, end = _decode(part, at)
                    separator = _SEPARATOR.match(part, end)
                    if separator is None:
                        break
                    items.append(item)
                    at, closed = separator.end(), separator[1] == "]"
            except (json.JSONDecodeError, RecursionError) as error:
                reason = _reason(error)
            self._at = at
            if items:
                yield items
            if closed:
                return
            if not self._more():
                raise self.wrong(reason)

    def wrong(self, what: str) -> ValueError:
        """An error that says where."""
        here = self._part[self._at : self._at + 40]
        place = f"before {here!r}" if here else "where the file ends"
        return ValueError(f"{what}, at character {self._before + self._at:,}, {place}")

    def _more(self) -> bool:
        rest = self._part[self._at :]
        if len(rest) > _LARGEST:
            raise self.wrong(f"one value is longer than {_LARGEST:,} characters")
        # as much again, so that an item of any size is taken in after few attempts
        new, content = "", b"..."
        while content and not new:
            content = self._file.read(max(_CHUNK, len(rest)))
            new = self._decoder.decode(content, final=not content)
        self._before += self._at
        self._part, self._at = rest + new, 0
        return bool(new)


def _end(match: re.Match[str] | None) -> int:
    assert match is not None  # it matches the empty string
    return match.end()


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
