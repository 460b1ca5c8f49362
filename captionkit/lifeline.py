"""How the processes of a run notice that one of them is gone, and end as well.

Each holds a connection to process 0. The system closes it however a process ends, at once; without
it the others would wait in their next exchange, for minutes or forever.
"""

from __future__ import annotations

import atexit
import hmac
import os
import secrets
import socket
import sys
import threading
from typing import NoReturn

from captionkit.processes import Processes

_DONE = b"done"
_SECONDS = 60.0  # to connect
_SECONDS_OF_A_STRANGER = 5.0  # to say what only the run's own processes know


def hold(processes: Processes, host: str) -> None:
    """Connect all processes to process 0, at `host`; from now on none outlives another's failure.

    A process that ends as it should says so first, and the others go on.
    """
    if processes.index == 0:
        server = socket.create_server((host if _is_local(host) else "", 0))
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
    atexit.register(_let_go, list(lines.values()))


def end_now(status: int) -> NoReturn:
    """End this process without a word to the others, who then end too.

    What a framework does at a process's end waits for the others, for minutes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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
        ended_well = _read(line, len(_DONE)) == _DONE
    except OSError:
        ended_well = False
    if not ended_well:
        # not print, and no cleaning up: the main thread may wait for the lost one forever
        os.write(
            2,
            f"\ncaptionkit: process {index} of this run has ended before its time (see what it "
            "said), so this one ends too. What was saved is whole: a training run goes on with "
            "resume, captioning with the same command.\n".encode(),
        )
        os._exit(1)


def _let_go(lines: list[socket.socket]) -> None:
    failed = hasattr(sys, "last_value")  # by an exception that nobody caught
    for line in lines:
        try:
            if not failed:
                line.sendall(_DONE)
            line.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def _is_local(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")
