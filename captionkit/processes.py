"""Which process of a run of several this is: one of them writes the files."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Whether this process writes files and shows progress; launchers such as torchrun set RANK."""
    return os.environ.get("RANK", "0") == "0"
