"""Reading `flax_model.msgpack`, as the Flax models of transformers 4 wrote it.

It is Flax's own serialisation of nested parameters. Their names and layouts differ from the torch
files in a regular way, which is undone here, so that one table serves both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy

from captionkit.backends.flax.models.convert import flatten
from captionkit.errors import CheckpointError

_WHOLE, _INDEX = "flax_model.msgpack", "flax_model.msgpack.index.json"
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def has_msgpack(folder: Path) -> bool:
    """Whether a folder holds Flax weights of transformers 4, whole or sharded."""
    return (folder / _WHOLE).is_file() or (folder / _INDEX).is_file()


def read_msgpack(folder: Path) -> dict[str, numpy.ndarray]:
    """Its tensors under Hugging Face names, in torch's layouts. Raises CheckpointError."""
    tensors: dict[str, numpy.ndarray] = {}
    for path in _files(folder):
        for name, value in flatten(_restore(path)).items():
            if not isinstance(name, str):
                raise CheckpointError(f"{path}: {name!r:.100} is no parameter's name.")
            if not isinstance(value, numpy.ndarray):
                raise CheckpointError(f"{path}: {name} is no array but {type(value).__name__}.")
            tensors |= [_as_torch(name.replace("/", "."), value)]
    return tensors


def _files(folder: Path) -> list[Path]:
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    try:
        homes = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        return [folder / Path(name).name for name in sorted(set(homes.values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder / _INDEX} cannot be read: {error!r:.200}.") from None


def _restore(path: Path) -> dict[str, Any]:
    from flax.serialization import msgpack_restore

    try:
        tree = msgpack_restore(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing, though the index names it.") from None
    except Exception as error:  # msgpack and Flax raise many kinds for a file that is cut off
        raise CheckpointError(
            f"{path} is damaged or cut off: {type(error).__name__}: {error}. Copy it again."
        ) from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} should hold parameters by name, not {type(tree).__name__}.")
    return tree


def _as_torch(name: str, value: numpy.ndarray) -> tuple[str, numpy.ndarray]:
    parents, _, leaf = name.rpartition(".")
    if leaf == "kernel" and value.ndim == 4:
        value = value.transpose(3, 2, 0, 1)
    elif leaf == "kernel":
        value = value.T
    return f"{parents}.{_LEAVES.get(leaf, leaf)}" if parents else leaf, value
