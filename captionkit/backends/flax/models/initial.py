"""Initial values of abstract parameters, drawn by numpy: nothing is compiled for them."""

from __future__ import annotations

from typing import Any

import numpy
from flax import nnx

from captionkit.backends.flax.models.convert import nest


def initial_values(state: nnx.State, seed: int) -> dict[str, Any]:
    """Float32 arrays for the abstract parameters of a state, each as its `init` says.

    Every parameter has a stream of its own, from the seed and its path, so that a change to one
    part of a model does not change the rest.
    """
    values = {}
    for path, variable in nnx.to_flat_state(state):
        name = ".".join(map(str, path))
        about = variable.get_metadata()
        kind, amount = about["init"]
        shape = variable.get_value().shape
        if kind == "normal":
            stream = numpy.random.default_rng([seed, *name.encode()])
            values[name] = stream.standard_normal(shape, numpy.float32) * numpy.float32(amount)
        else:
            values[name] = numpy.full(shape, amount, numpy.float32)
        if about["zero_row"] is not None:
            values[name][about["zero_row"]] = 0.0
    return nest(values)
