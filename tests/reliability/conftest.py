"""Small training runs on whichever backends are installed, and a disk of one's own to fill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the harness


@pytest.fixture(scope="module", params=["torch", "flax"])
def backend(request):
    for module in {"torch": ("torch", "accelerate"), "flax": ("jax", "flax")}[request.param]:
        pytest.importorskip(module)
    return request.param


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root can mount a small file system, on Linux")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
