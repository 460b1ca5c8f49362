"""Stopping a run as a user would, at a chosen step."""

from __future__ import annotations

import signal

from captionkit import tracking


class StopAt:
    """Presses Ctrl-C after a step, as a user would."""

    def __init__(self, step):
        self.step = step

    def __enter__(self):
        self.original = tracking.Tracking.__call__

        def call(tracker, event):
            self.original(tracker, event)
            if event.kind == "step" and event.step == self.step:
                signal.raise_signal(signal.SIGINT)

        tracking.Tracking.__call__ = call

    def __exit__(self, *_):
        tracking.Tracking.__call__ = self.original
