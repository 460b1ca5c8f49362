"""Weights on disk: read from safetensors or a Flax msgpack, written as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy

from captionkit.backends.flax.models.msgpack import has_msgpack, read_msgpack
from captionkit.errors import CheckpointError
from captionkit.tensors import TensorFiles, conversion_hint, has_safetensors


def read_tensors(folder: Path) -> Mapping[str, numpy.ndarray]:
    """The tensors of a folder by their Hugging Face names. Raises CheckpointError."""
    if has_safetensors(folder):
        return TensorFiles(folder)
    if has_msgpack(folder):
        return read_msgpack(folder)
    raise CheckpointError(
        f"{folder} holds no weights that the Flax backend reads (model.safetensors, its shards, or "
        f"flax_model.msgpack). {conversion_hint(folder)}"
    )


def write_tensors(folder: Path, tensors: Mapping[str, numpy.ndarray]) -> None:
    """Write `model.safetensors` in a form that transformers reads."""
    from safetensors.numpy import save_file

    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
