"""One file over http(s): resumed where it broke off, tried again, compared with what was said."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionkit import __version__
from captionkit.data.fetch import is_url
from captionkit.errors import DataError, OutputError

STALLED = 60.0  # seconds without a byte
_ATTEMPTS = 6  # that bring nothing new, in a row
_LONGEST_WAIT = 300.0  # seconds, whatever the server asks for
_CHUNK = 2**20
_PASSING = (408, 425, 429, 500, 502, 503, 504)


@dataclass
class _State:
    """What is known of a file that is on its way; kept beside it, to go on from."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None


class _Broken(Exception):
    """An attempt that ended too early, and when the server wants the next one."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def remote_size(url: str) -> int | None:
    """The size of a file in bytes, if its server says so. Raises DataError."""
    request = urllib.request.Request(url, method="HEAD", headers=_headers())
    try:
        with urllib.request.urlopen(request, timeout=STALLED) as response:
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdecimal() else None
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410, 401, 403):
            raise DataError(f"{url}: the server answered {error.code} {error.reason}.") from None
        return None
    except (OSError, ValueError, http.client.HTTPException):
        return None  # the attempts to fetch it say more


def fetch_file(
    url: str,
    part: Path,
    expected_size: int | None = None,
    on_bytes: Callable[[int, int | None], None] = lambda done, total: None,
    on_retry: Callable[[str], None] = lambda text: None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch an address into the file `part`, going on from what is there of it already.

    on_bytes: called with the bytes that are there and their total, where that is known.
    on_retry: called with a sentence before an attempt is repeated. Raises DataError with what the
    server did, and OutputError where `part` cannot be written; what has come is kept in both.
    """
    best, fruitless = -1, 0
    while True:
        try:
            _attempt(url, part, expected_size, on_bytes)
            _state_file(part).unlink(missing_ok=True)
            return
        except _Broken as error:
            there = _size(part)
            # a server that always starts anew brings nothing new by getting as far as before
            fruitless = 0 if there > best else fruitless + 1
            best = max(best, there)
            if fruitless >= _ATTEMPTS:
                kept = f"; what has come ({there:,} bytes) is kept in {part}" if there else ""
                raise DataError(
                    f"{url}: {error}, {_ATTEMPTS} times in a row{kept}. Run the same command again "
                    "to go on."
                ) from None
            pause = min(max(error.wait, 2.0**fruitless), _LONGEST_WAIT)
            on_retry(f"{error}; trying again in {pause:.0f} s")
            wait(pause)


def _attempt(
    url: str,
    part: Path,
    expected_size: int | None,
    on_bytes: Callable[[int, int | None], None],
) -> None:
    state = _read_state(part, url)
    start = _size(part)
    if start and start == (expected_size or state.size):
        return on_bytes(start, start)
    request = urllib.request.Request(url, headers=_headers(start, state))
    try:
        with urllib.request.urlopen(request, timeout=STALLED) as response:
            if not is_url(response.geturl()):
                raise DataError(f"{url} leads to {response.geturl()}, which is not http or https.")
            if response.status == 206:
                total = _range_total(response.headers, start, state, part)
            else:  # all of it, from the start
                start, total = 0, _length(response.headers)
            if expected_size is not None and total not in (None, expected_size):
                raise DataError(
                    f"{url}: the server has a file of {total:,} bytes, but the published one has "
                    f"{expected_size:,}. It may have been replaced, or this is not its server. "
                    "--unchecked fetches it all the same."
                )
            if start == 0:
                _write_state(part, url, response.headers, total)
            _copy(response, part, start, total or expected_size, on_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            return _out_of_range(error, part, start, expected_size, on_bytes)
        if error.code not in _PASSING:
            raise DataError(f"{url}: the server answered {error.code} {error.reason}.") from None
        after = error.headers.get("Retry-After", "")
        raise _Broken(
            f"the server answered {error.code} {error.reason}",
            float(after) if after.isdecimal() else 0.0,
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _Broken(f"the connection failed ({reason or type(error).__name__})") from None


def _copy(
    response: Any,
    part: Path,
    start: int,
    total: int | None,
    on_bytes: Callable[[int, int | None], None],
) -> None:
    done = start
    on_bytes(done, total)
    with _told(part):
        file = part.open("r+b" if start else "wb", buffering=0)
        file.seek(start)
    with file:
        while chunk := response.read1(_CHUNK):
            done += len(chunk)
            if total is not None and done > total:
                raise DataError(
                    f"{response.geturl()}: the server sends more than the {total:,} bytes that "
                    "the file has. Try again later."
                )
            with _told(part):
                left = memoryview(chunk)
                while left:
                    left = left[file.write(left) :]
            on_bytes(done, total)
        with _told(part):
            os.fsync(file.fileno())
    if total is not None and done < total:
        # http.client takes a connection that is closed too early for the end of the file
        raise _Broken(f"the connection ended after {done:,} of {total:,} bytes")


def _out_of_range(
    error: urllib.error.HTTPError,
    part: Path,
    start: int,
    expected_size: int | None,
    on_bytes: Callable[[int, int | None], None],
) -> None:
    """The server has no byte from `start` on: either that is all of it, or it is another file."""
    said = error.headers.get("Content-Range", "").rpartition("/")[2]
    if said.isdecimal() and int(said) == start and expected_size in (None, start):
        return on_bytes(start, start)
    _forget(part)
    raise _Broken("the server's file is shorter than what had come of it; starting anew") from None


def _range_total(headers: Any, start: int, state: _State, part: Path) -> int | None:
    """The size of the whole file, of which a part from `start` on follows."""
    given = headers.get("Content-Range", "")
    where, _, said = given.removeprefix("bytes ").partition("/")
    total = int(said) if said.isdecimal() else None
    if where.partition("-")[0] != str(start) or (state.size and total not in (None, state.size)):
        _forget(part)
        raise _Broken(f"the server sent another part than it was asked for ({given!r})")
    return total


# ---- the file and what is known of it ----------------------------------------------------------


@contextlib.contextmanager
def _told(part: Path) -> Iterator[None]:
    """An OutputError for what the disk refuses, which is not the connection's fault."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{part} cannot be written: {error.strerror or error}. What has come is kept: run the "
            "same command again when that is mended."
        ) from None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path, url: str) -> _State:
    """What was noted when the file was begun; nothing where it came from another server."""
    try:
        state = _State(**json.loads(_state_file(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _State(url)  # also of a part that was put there by hand: its checksum will tell
    return state if state.url == url else _State(url)


def _write_state(part: Path, url: str, headers: Any, total: int | None) -> None:
    state = _State(url, headers.get("ETag"), headers.get("Last-Modified"), total)
    with _told(part):
        part.unlink(missing_ok=True)  # the old bytes never stand beside the new note
        _state_file(part).write_text(json.dumps(vars(state)), encoding="utf-8")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def _headers(start: int = 0, state: _State | None = None) -> dict[str, str]:
    headers = {"User-Agent": f"captionkit/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        etag = state.etag if state and state.etag and not state.etag.startswith("W/") else None
        if validator := etag or (state and state.last_modified):
            headers["If-Range"] = validator  # all of it, where the file has changed since
    return headers


def _length(headers: Any) -> int | None:
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None
