"""Adafactor (Shazeer & Stern 2018, arXiv:1804.04235) as transformers' class computes it.

A matrix has two vectors of statistics instead of one number a weight. The learning rate is ours:
nothing is relative to the step or to the size of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

Values = dict[str, jax.Array]

_DECAY, _EPSILON, _CLIP = 0.8, 1e-30, 1.0  # exponent of the decay; the paper's other constants


def adafactor(stacks: Collection[str]) -> optax.GradientTransformationExtraArgs:
    """Adafactor but for the learning rate and weight decay, on a flat dict of parameters.

    stacks: the paths with layers in front, each of which is a tensor of its own. `update` takes
    `finite`: where it is false the state stays as it was.
    """
    factored = optax.scale_by_factored_rms(
        decay_rate=_DECAY, min_dim_size_to_factor=1, epsilon=_EPSILON
    )

    def tensors(path: str, value: jax.Array) -> jax.Array:
        return value if path in stacks else value[None]

    def matrices(path: str, value: jax.Array) -> jax.Array:
        value = tensors(path, value)
        if value.ndim < 3:  # biases and the like have no two axes: each is one vector
            return value.reshape(len(value), -1)
        return _as_in_torch(value).reshape(-1, *_as_in_torch(value).shape[-2:])

    both = optax.chain(_each(matrices, factored), _each(tensors, optax.clip_by_block_rms(_CLIP)))

    def update(
        updates: Values, state: Any, params: Any = None, *, finite: Any = True, **_: Any
    ) -> Any:
        updates, moved = both.update(updates, state, params)
        return updates, jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)

    return optax.GradientTransformationExtraArgs(both.init, update)


def _each(
    cells: Callable[[str, jax.Array], jax.Array], transformation: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The transformation applied to the cells of each parameter, `(cells, ...)`, by themselves."""

    def init(params: Values) -> dict[str, Any]:
        return {
            path: jax.vmap(transformation.init)(cells(path, value))
            for path, value in params.items()
        }

    def update(updates: Values, state: dict[str, Any], params: Any = None) -> Any:
        changed, kept = {}, {}
        for path, value in updates.items():
            parts = cells(path, value)
            parts, kept[path] = jax.vmap(transformation.update)(parts, state[path], parts)
            changed[path] = _like(parts, value)
        return changed, kept

    return optax.GradientTransformation(init, update)


def _as_in_torch(value: jax.Array) -> jax.Array:
    """`(tensors, height, width, inputs, outputs)` of convolutions with the pixels last.

    torch's Adafactor factors the last two axes, whichever they are.
    """
    return value.transpose(0, 4, 3, 1, 2) if value.ndim == 5 else value


def _like(cells: jax.Array, value: jax.Array) -> jax.Array:
    """The reverse of taking a value to pieces."""
    if value.ndim == 4 and cells.ndim == 3:
        height, width, inputs, outputs = value.shape
        return cells.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
    return cells.reshape(value.shape)
