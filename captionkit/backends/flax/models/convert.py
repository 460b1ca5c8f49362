"""Weights from Hugging Face names to Flax parameters and back, driven by a table.

A row says which tensor becomes which parameter, and how. `{}` in its name stands for the number of
the layer; the tensors of all layers are stacked along a new first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from captionkit.errors import CheckpointError
from captionkit.tensors import weights_do_not_fit


@dataclass(frozen=True)
class Row:
    """One tensor of a checkpoint, or one a layer.

    hf: its name in model.safetensors. flax: the path of its parameter, joined by dots.
    transform: a key of `TRANSFORMS`. optional: files may lack it; it is then filled with zeros.
    """

    hf: str
    flax: str
    transform: str = "same"
    optional: bool = False


Table = Sequence[Row]

# From a Hugging Face tensor to a Flax parameter, and back.
TRANSFORMS: dict[str, tuple[Callable, Callable]] = {
    "same": (lambda x: x, lambda x: x),
    # torch's Linear: (outputs, inputs)
    "transpose": (lambda x: x.T, lambda x: x.T),
    # torch's Conv2d: (outputs, inputs, height, width); ours (height, width, inputs, outputs)
    "conv": (lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
}


def prefixed(table: Table, hf: str, flax: str) -> list[Row]:
    """The rows of a part as rows of the whole model."""
    return [Row(hf + row.hf, flax + row.flax, row.transform, row.optional) for row in table]


def to_flax(
    tensors: Mapping[str, numpy.ndarray], table: Table, abstract: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Parameters, float32 and nested as `abstract`, from tensors by their Hugging Face names.

    Raises CheckpointError that lists the tensors that are missing, unknown, or of another shape.
    """
    shapes = {path: leaf.shape for path, leaf in flatten(abstract).items()}
    expected = {name: row for row in table for name in _names(row, shapes[row.flax])}
    missing = [n for n, row in expected.items() if n not in tensors and not row.optional]
    unknown = [n for n in tensors if n not in expected]
    wrong, params = [], {}
    for row in table:
        shape = shapes[row.flax]
        names = _names(row, shape)
        stacked = "{}" in row.hf
        values = numpy.zeros(shape if stacked else (1, *shape), numpy.float32)
        for value, name in zip(values, names, strict=True):
            if name not in tensors:
                continue
            tensor = tensors[name]
            if tensor.ndim != value.ndim or _shape(tensor, row) != value.shape:
                wanted = TRANSFORMS[row.transform][1](numpy.empty(value.shape, "b")).shape
                wrong.append(f"{name} is {tensor.shape} instead of {wanted}")
                continue
            value[...] = TRANSFORMS[row.transform][0](tensor)
        params[row.flax] = values if stacked else values[0]
    if missing or unknown or wrong:
        raise weights_do_not_fit(where, missing, unknown, wrong)
    return nest(params)


def to_hf(params: Mapping[str, Any], table: Table) -> dict[str, numpy.ndarray]:
    """Tensors by their Hugging Face names, from parameters."""
    flat, tensors = flatten(params), {}
    for row in table:
        values = numpy.asarray(flat[row.flax])
        back = TRANSFORMS[row.transform][1]
        names = _names(row, values.shape)
        for name, value in zip(names, values if "{}" in row.hf else [values], strict=True):
            tensors[name] = numpy.ascontiguousarray(back(value))
    return tensors


def tensor_names(
    table: Table, abstract: Mapping[str, Any]
) -> list[tuple[str, tuple[str, ...], int | None]]:
    """(Hugging Face name, path of the parameter, its layer where layers are stacked) of all."""
    shapes = {path: leaf.shape for path, leaf in flatten(abstract).items()}
    return [
        (name, tuple(row.flax.split(".")), layer if "{}" in row.hf else None)
        for row in table
        for layer, name in enumerate(_names(row, shapes[row.flax]))
    ]


def renamed(
    tensors: Mapping[str, numpy.ndarray], rename: Callable[[str], str | None], where: str
) -> Renamed:
    """The tensors under other names, without those that get none. Nothing is read."""
    names: dict[str, str] = {}
    for old in tensors:
        new = rename(old)
        if new in names:
            raise CheckpointError(
                f"The weights in {where} hold one tensor twice, as {names[new]} and as {old}."
            )
        if new is not None:
            names[new] = old
    return Renamed(tensors, names)


def without_tied_head(
    tensors: Renamed, head: str, embedding: str, where: str, hint: str | None = None
) -> Renamed:
    """The tensors with the one matrix that both names stand for under the embedding's alone.

    A file may hold it under either name, or under both. hint: where config.json says that they are
    one; None: they always are. Raises CheckpointError where they differ.
    """
    if head not in tensors:
        return tensors
    if embedding in tensors and not numpy.array_equal(tensors[embedding], tensors[head]):
        told = f"In {where} {head} differs from {embedding}, but"
        if hint is None:
            raise CheckpointError(f"{told} in this model they are one matrix.")
        raise CheckpointError(
            f"{told} its config says that they are one matrix. "
            f'Set "tie_word_embeddings": false {hint} if both are meant.'
        )
    names = {name: tensors.names[name] for name in tensors if name != head}
    names.setdefault(embedding, tensors.names[head])
    return Renamed(tensors.tensors, names)


class Renamed(Mapping[str, numpy.ndarray]):
    """Tensors under other names."""

    def __init__(self, tensors: Mapping[str, numpy.ndarray], names: Mapping[str, str]):
        self.tensors = tensors
        self.names = names  # new to old

    def __getitem__(self, name: str) -> numpy.ndarray:
        return self.tensors[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Leaves of nested mappings by their path, joined by a separator."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            inside = flatten(value, separator)
            flat |= {f"{name}{separator}{path}": leaf for path, leaf in inside.items()}
        else:
            flat[name] = value
    return flat


def nest(flat: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The reverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(separator)
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def _names(row: Row, shape: tuple[int, ...]) -> list[str]:
    if "{}" not in row.hf:
        return [row.hf]
    return [row.hf.replace("{}", str(layer)) for layer in range(shape[0])]


def _shape(tensor: numpy.ndarray, row: Row) -> tuple[int, ...]:
    return TRANSFORMS[row.transform][0](tensor).shape
