"""Memory, file handles and threads stay as they are, over 10,000 steps and 50,000 captions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import killing
import pytest

STEPS, CAPTIONS = int(os.environ.get("CAPTIONKIT_STEPS", "10000")), 50_000


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_grows(backend, tmp_path):
    program = Path(__file__).with_name("long_run.py")
    arguments = [sys.executable, str(program), backend, str(tmp_path), str(STEPS), str(CAPTIONS)]
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=killing.environment(), check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    print({part: (rows[10], rows[-1]) for part, rows in measured.items() if part != "seconds"})
    for part in ("training", "captioning"):
        # a tenth is the way to the level that is kept: caches, pools, compiled programs
        rows = measured[part][10:]
        half = len(rows) // 2
        for what, slack in (("rss", 16), ("handles", 4), ("threads", 4)):
            first, second = (max(r[what] for r in part) for part in (rows[:half], rows[half:]))
            assert second <= first + slack, (part, what, rows[:: len(rows) // 10])
