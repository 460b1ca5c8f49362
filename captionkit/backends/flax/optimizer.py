"""AdamW over the trained tensors: which these are, which of them decay, and one update of them.

Parameters are a flat dict here, by path ("encoder/layers/query/kernel"). Freezing and decay go by
the names of tensors in model.safetensors; of a stack some layers may be frozen and others not.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from captionkit.errors import ConfigError
from captionkit.recipe import TrainingConfig

# (name in model.safetensors, path, layer in the stack or None)
TensorName = tuple[str, tuple[str, ...], int | None]

_BIAS_OR_NORM = re.compile(r"bias|(^|\.)(ln_\w+|\w*layer_?norm\w*|\w*_norm|norm)(\.|$)", re.I)


@dataclass(frozen=True)
class Trained:
    """Which parameters move, by path.

    layers: for each trained path None, or a float32 array `(layers, 1, ...)`, 0 at frozen layers.
    decays: for each trained path whether weight decay applies.
    count: how many numbers are trained.
    """

    layers: Mapping[str, np.ndarray | None]
    decays: Mapping[str, bool]
    count: int


def trained_tensors(
    names: Sequence[TensorName],
    shapes: Mapping[str, tuple[int, ...]],
    freeze: Sequence[str],
    untrained: Sequence[str] = (),
) -> Trained:
    """All tensors but those whose names match `freeze` (the recipe's) or `untrained` (the model's).

    shapes: of the parameters by path. Raises ConfigError for a pattern that matches no tensor, and
    where nothing is left.
    """
    for pattern in freeze:
        if not any(fnmatch.fnmatchcase(name, pattern) for name, _, _ in names):
            examples = ", ".join(name for name, _, _ in names[:4])
            raise ConfigError(
                f"freeze pattern {pattern!r} matches no tensor. Names look like: {examples}, ..."
            )
    frozen = (*freeze, *untrained)
    moves: dict[str, list[bool]] = {}
    decays: dict[str, bool] = {}
    for name, path, _ in sorted(names, key=lambda entry: entry[2] or 0):
        is_frozen = any(fnmatch.fnmatchcase(name, pattern) for pattern in frozen)
        moves.setdefault("/".join(path), []).append(not is_frozen)
        decays["/".join(path)] = decay_applies(name)
    moves = {path: layers for path, layers in moves.items() if any(layers)}
    if not moves:
        raise ConfigError("freeze leaves nothing to train. Use fewer patterns.")
    return Trained(
        {path: None if all(ls) else _column(ls, shapes[path]) for path, ls in moves.items()},
        {path: decays[path] for path in moves},
        sum(int(np.prod(shapes[path])) * sum(ls) // len(ls) for path, ls in moves.items()),
    )


def decay_applies(name: str) -> bool:
    """Whether weight decay applies to a tensor: not to biases and normalisation layers."""
    return _BIAS_OR_NORM.search(name) is None


def adamw(training: TrainingConfig, trained: Trained) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) but for the learning rate."""
    return optax.chain(
        optax.scale_by_adam(training.adam_beta1, training.adam_beta2, training.adam_epsilon),
        optax.add_decayed_weights(training.weight_decay, mask=dict(trained.decays)),
    )


def clip(
    gradients: dict[str, jax.Array], max_norm: float
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The gradients scaled down to a global norm of `max_norm` (0: as they are), and the norm."""
    norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in gradients.values()))
    if not max_norm:
        return gradients, norm
    factor = jnp.minimum(1.0, max_norm / (norm + 1e-6))  # as torch's clip_grad_norm_
    return {path: gradient * factor for path, gradient in gradients.items()}, norm


def only_trained(values: dict[str, jax.Array], trained: Trained) -> dict[str, jax.Array]:
    """Gradients or updates with zeros at the frozen layers of stacks."""
    return {
        path: value if trained.layers[path] is None else value * trained.layers[path]
        for path, value in values.items()
    }


def flatten(params: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested parameters by path."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        path = f"{above}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


def unflatten(flat: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The reverse of `flatten`."""
    nested: dict[str, Any] = {}
    for path, value in dict(flat).items():
        *above, name = path.split("/")
        place = nested
        for part in above:
            place = place.setdefault(part, {})
        place[name] = value
    return nested


def _column(layers: list[bool], shape: tuple[int, ...]) -> np.ndarray:
    return np.array(layers, np.float32).reshape(-1, *[1] * (len(shape) - 1))
