"""A stack of layers of which some are frozen: cut where frozen and trained layers meet.

As one array its gradient is that of all layers. In pieces, frozen layers are constants, of which
none is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pieces:
    """Stands for an array `(layers, ...)` in the parameters that a loss is differentiated with.

    parts: `(layers of the part, ...)` each, one behind another. Only `scan_layers` reads it.
    """

    parts: tuple[jax.Array, ...]


def in_pieces(stack: jax.Array, moving: jax.Array, layers: Sequence[int] | numpy.ndarray) -> Pieces:
    """The stack with its trained layers replaced, one part a run of frozen or of trained layers.

    stack: `(layers, ...)`. moving: the trained layers, `(trained, ...)`; layers: their numbers,
    ascending.
    """
    trained = numpy.isin(numpy.arange(len(stack)), layers)
    bounds = [0, *(numpy.flatnonzero(trained[1:] != trained[:-1]) + 1).tolist(), len(stack)]
    runs = list(pairwise(bounds))
    lengths = [end - start for start, end in runs if trained[start]]
    # split, since its gradient is a concatenation; that of slices would be a sum of padded stacks
    moved = iter(jnp.split(moving, numpy.cumsum(lengths)[:-1]))
    return Pieces(tuple(next(moved) if trained[start] else stack[start:end] for start, end in runs))


def runs_of(tree: Any) -> list[Any]:
    """A tree of stacks and `Pieces` cut wherever one of them is: the trees of the runs of layers.

    Where there are no `Pieces` that is the tree itself.
    """
    stacks, form = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, Pieces))
    bounds = sorted({b for s in stacks if isinstance(s, Pieces) for b in _bounds(s)})
    if not bounds:
        return [tree]
    return [
        form.unflatten([_cut(stack, start, end) for stack in stacks])
        for start, end in pairwise(bounds)
    ]


def _bounds(pieces: Pieces) -> list[int]:
    """Where its parts begin, and where the last one ends."""
    return [0, *numpy.cumsum([len(part) for part in pieces.parts]).tolist()]


def _cut(stack: jax.Array | Pieces, start: int, end: int) -> jax.Array:
    """Layers start to end, which lie in one part."""
    if not isinstance(stack, Pieces):
        return stack[start:end]
    for part, (first, last) in zip(stack.parts, pairwise(_bounds(stack)), strict=True):
        if first <= start < last:
            return part[start - first : end - first]
    raise IndexError(f"no part holds layer {start}")
