"""Which model a checkpoint folder holds, in a few characters and without reading all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

_WEIGHTS = (".safetensors", ".bin", ".msgpack")
_BLOCKS, _BLOCK = 64, 4096  # of a file of weights, spread evenly: training changes every block


def fingerprint(checkpoint: Path | None) -> str | None:
    """16 hex digits that change when the settings, vocabulary or weights in the folder do."""
    if checkpoint is None or not checkpoint.is_dir():
        return None
    whole = hashlib.blake2b(digest_size=8)
    for path in sorted(checkpoint.iterdir()):
        if path.suffix in (".json", ".txt", ".model"):
            whole.update(path.name.encode() + path.read_bytes())
        elif path.suffix in _WEIGHTS:
            size = path.stat().st_size
            whole.update(f"{path.name} {size}".encode())
            with open(path, "rb") as file:
                for block in range(_BLOCKS):
                    file.seek(max(0, size - _BLOCK) * block // (_BLOCKS - 1))
                    whole.update(file.read(_BLOCK))
    return whole.hexdigest()
