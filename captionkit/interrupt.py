"""Ctrl-C and SIGTERM ask a run to stop after its step, so that it can save a checkpoint first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_NOTICE = "stopping after this step and saving a checkpoint (once more to stop at once)"


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM does what Ctrl-C does, where nothing else is arranged for it."""

    def handle(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def stop_requested_by_signal(notice: str = _NOTICE) -> Iterator[Callable[[], bool]]:
    """Within the block the first signal only sets what the yielded function returns.

    notice: what is said then. A second signal raises KeyboardInterrupt. Outside the main thread
    signals cannot be caught and the function returns False.
    """
    requested = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()
        # not print: a handler may interrupt another write to the same stream
        os.write(2, f"\ncaptionkit: {notice}\n".encode())

    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    caught = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, handle) for number in caught}
    try:
        yield requested.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
