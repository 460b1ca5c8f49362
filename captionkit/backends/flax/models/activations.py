"""Activation functions by the names that Hugging Face configs use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from captionkit.errors import CheckpointError


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of that name. Raises CheckpointError for one that is not known."""
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"The activation {name!r} is not supported. Supported: "
            f"{', '.join(sorted(ACTIVATIONS))}."
        )
    return ACTIVATIONS[name]


_exact_gelu = partial(jax.nn.gelu, approximate=False)
_tanh_gelu = partial(jax.nn.gelu, approximate=True)

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": _exact_gelu,
    "gelu_python": _exact_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_accurate": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "gelu_python_tanh": _tanh_gelu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "hardswish": jax.nn.hard_swish,
    "mish": jax.nn.mish,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}
