"""How the processes of a run notice that one of them is gone, and end as well.

Each holds a connection to process 0. The system closes it however a process ends, at once; without
it the others would wait in their next exchange, for minutes or forever.
"""

from __future__ import annotations

import atexit
import contextlib
import hmac
import os
import secrets
import socket
import sys
import threading
import time

from captionkit.processes import Processes

_DONE, _FAILED = b"done", b"fail"
_SECONDS_TO_FAIL_TOO = 10.0
_SECONDS = 60.0  # to connect
_SECONDS_OF_A_STRANGER = 5.0  # to say what only the run's own processes know

_lines: list[socket.socket] = []  # to the others, or to process 0
_status: int | None = None  # what this process will end with, where it failed


def hold(processes: Processes, host: str) -> None:
    """Connect all processes to process 0, at `host`; from now on none outlives another's failure.

    A process that ends as it should says so first, and the others go on. One that fails says that,
    and the others have a moment to come to the same error by themselves.
    """
    if processes.index == 0:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.create_server((host if _is_local(host) else "", 0), family=family)
        token = secrets.token_bytes(16)
        port = server.getsockname()[1]
        processes.broadcast(port.to_bytes(2, "big") + token)
        lines = _accepted(server, token, processes.count - 1)
        server.close()
        processes.wait()
    else:
        told = processes.broadcast(b"")
        line = socket.create_connection((host, int.from_bytes(told[:2], "big")), _SECONDS)
        line.sendall(told[2:] + processes.index.to_bytes(4, "big"))
        lines = {0: line}
        processes.wait()
    for index, line in lines.items():
        line.settimeout(None)
        threading.Thread(
            target=_watch, args=(line, index), name="captionkit-lifeline", daemon=True
        ).start()
    _lines.extend(lines.values())
    atexit.register(_let_go)


def failed(status: int) -> None:
    """Tell the others that this process will end with an error, with this exit status."""
    global _status
    if _status is None:
        _status = status
        _say(_FAILED)


def _accepted(server: socket.socket, token: bytes, count: int) -> dict[int, socket.socket]:
    """The connections of the other processes, who alone know the token."""
    lines: dict[int, socket.socket] = {}
    server.settimeout(_SECONDS)
    while len(lines) < count:
        line, _ = server.accept()
        line.settimeout(_SECONDS_OF_A_STRANGER)
        try:
            told = _read(line, len(token) + 4)
        except OSError:
            told = b""
        if hmac.compare_digest(told[: len(token)], token):
            lines[int.from_bytes(told[len(token) :], "big")] = line
        else:
            line.close()
    return lines


def _read(line: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count and (more := line.recv(count - len(content))):
        content += more
    return content


def _watch(line: socket.socket, index: int) -> None:
    try:
        told = _read(line, len(_DONE))
    except OSError:
        told = b""
    if told == _DONE:
        return
    if told == _FAILED:
        time.sleep(_SECONDS_TO_FAIL_TOO)
    if _status is None:
        # not print, and no cleaning up: the main thread may wait for the lost one forever
        os.write(
            2,
            f"\ncaptionkit: process {index} of this run has ended before its time (see what it "
            "said), so this one ends too. What was saved is whole: a training run goes on with "
            "resume, captioning with the same command.\n".encode(),
        )
    # at its end a framework may wait for the lost one, for a minute or more
    os._exit(_status or 1)


def _let_go() -> None:
    if hasattr(sys, "last_value"):  # an exception that nobody caught
        failed(1)
    elif _status is None:
        _say(_DONE)


def _say(word: bytes) -> None:
    for line in _lines:
        with contextlib.suppress(OSError):
            line.sendall(word)


def _is_local(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")
