"""One part of a model to be made: its config and its tensors, read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from captionkit.errors import CheckpointError, first_line
from captionkit.models import model_type
from captionkit.tensor_names import canonical
from captionkit.tensors import TensorFiles, weights_do_not_fit

Tensors = dict[str, numpy.ndarray]

# Whole models, each with the part that captions images.
_VISION_PART = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}


@dataclass(frozen=True)
class Part:
    """A checkpoint folder to be made a part of.

    kind: its model type. values: its config as it is to be written. config: as transformers reads
    it, with a value for everything.
    """

    folder: Path
    kind: str
    values: dict[str, Any]
    config: Any

    @property
    def std(self) -> float:
        """The standard deviation of weights that are initialised anew."""
        return float(getattr(self.config, "initializer_range", 0.02))


def read_part(folder: Path, role: str, known: Collection[str]) -> Part:
    """The part that a checkpoint is to be. Raises CheckpointError for a type that is not known."""
    from transformers import AutoConfig
    from transformers.utils import logging

    kind = model_type(folder)
    if role == "encoder" and kind in _VISION_PART:
        kind = _VISION_PART[kind]
    if kind not in known:
        raise CheckpointError(
            f"{folder} is a model of type {kind!r}, which cannot be the {role} of a captioner "
            f"here. Possible: {', '.join(known)}.{_WHY[role]}"
        )
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it says a lot of the text part of a SigLIP
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # each model's config checks its fields in its own way
        raise CheckpointError(f"{folder}/config.json cannot be used: {first_line(error)}") from None
    finally:
        logging.set_verbosity(level)
    if config.model_type != kind:
        config = config.vision_config
        values = {**config.to_diff_dict(), "model_type": kind}
    else:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    written = {name: value for name, value in values.items() if name not in _NOT_WRITTEN}
    return Part(folder, kind, written, config)


def read_tensors(part: Part, prefix: str = "") -> Tensors:
    """The tensors of a part as float32, under the names that the whole model has them by.

    prefix: how the names of its tensors begin in a model with another head; where some do, the
    others belong to that head.
    """
    files, tensors = TensorFiles(part.folder), {}
    inside = prefix and any(name.startswith(prefix) for name in files)
    for name in files:
        if inside and not name.startswith(prefix):
            continue
        known = canonical(name.removeprefix(prefix), part.kind)
        tensor = files[name] if known is not None else None
        if known is not None and tensor is not None and tensor.dtype.kind == "f":
            tensors[known] = numpy.ascontiguousarray(tensor, numpy.float32)
    return tensors


def check_layers(part: Part, tensors: Mapping[str, Any], depths: Mapping[str, int]) -> None:
    """Raise CheckpointError where layers are missing, or too many, or lack what others have.

    depths: by the name of a stack ("encoder.layer") how many layers it has.
    """
    expected, found = set(), set()
    for stack, depth in depths.items():
        inside = re.compile(rf"{re.escape(stack)}\.(\d+)\.(.+)")
        matches = [match for name in tensors if (match := inside.fullmatch(name))]
        rests = {match[2] for match in matches} or {"*"}
        expected |= {f"{stack}.{layer}.{rest}" for layer in range(depth) for rest in rests}
        found |= {match[0] for match in matches}
    if expected != found:
        raise weights_do_not_fit(part.folder, expected - found, found - expected)


def normal(name: str, shape: tuple[int, ...], std: float, seed: int) -> numpy.ndarray:
    """Random weights, the same for a name and a seed anywhere."""
    stream = numpy.random.default_rng([seed, *name.encode()])
    return stream.standard_normal(shape, numpy.float32) * numpy.float32(std)


_NOT_WRITTEN = ("architectures", "transformers_version", "_name_or_path", "torch_dtype", "dtype")
_WHY = {
    "encoder": "",
    "decoder": " A decoder looks at the image through cross-attention, which OPT, Llama, Qwen and "
    "most other language models do not have in transformers.",
}
