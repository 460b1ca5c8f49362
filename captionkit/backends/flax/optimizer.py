"""The trained tensors: which these are, which of them decay, and the optimizer over them.

Parameters are a flat dict here, by path ("encoder/layers/query/kernel"). Freezing and decay go by
the names of tensors in model.safetensors; of a stack some layers may be frozen and others not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from captionkit.backends.flax.adafactor import adafactor
from captionkit.backends.flax.adam import adam
from captionkit.backends.flax.models import convert
from captionkit.backends.flax.models.pieces import in_pieces
from captionkit.freezing import frozen_tensors
from captionkit.recipe import TrainingConfig

# (name in model.safetensors, path, layer in the stack or None)
TensorName = tuple[str, tuple[str, ...], int | None]

_BIAS_OR_NORM = re.compile(r"bias|(^|\.)(ln_\w+|\w*layer_?norm\w*|\w*_norm|norm)(\.|$)", re.I)


@dataclass(frozen=True)
class Trained:
    """Which parameters move, by path.

    layers: for each trained path None, or of a stack in part frozen the numbers of the others.
    stacks: the trained paths with layers in front.
    decays: for each trained path whether weight decay applies.
    count: how many numbers are trained.
    """

    layers: Mapping[str, np.ndarray | None]
    stacks: frozenset[str]
    decays: Mapping[str, bool]
    count: int


def trained_tensors(
    names: Sequence[TensorName],
    shapes: Mapping[str, tuple[int, ...]],
    freeze: Sequence[str],
    untrained: Sequence[str] = (),
    model_type: str = "",
) -> Trained:
    """All tensors but those that the recipe freezes, and those that no caption depends on.

    shapes: of the parameters by path. freeze, untrained: see `frozen_tensors`. Raises ConfigError
    for a pattern that matches no tensor, and where nothing is left.
    """
    frozen = frozen_tensors([name for name, _, _ in names], freeze, model_type, untrained)
    moves: dict[str, list[bool]] = {}
    decays: dict[str, bool] = {}
    stacks = {"/".join(path) for _, path, layer in names if layer is not None}
    for name, path, _ in sorted(names, key=lambda entry: entry[2] or 0):
        moves.setdefault("/".join(path), []).append(name not in frozen)
        # a norm's name may not say so, as visual_projection.1 of GIT
        decays["/".join(path)] = decay_applies(name) and path[-1] != "scale"
    moves = {path: layers for path, layers in moves.items() if any(layers)}
    return Trained(
        {path: None if all(layers) else np.flatnonzero(layers) for path, layers in moves.items()},
        frozenset(stacks & moves.keys()),
        {path: decays[path] for path in moves},
        sum(int(np.prod(shapes[path])) * sum(ls) // len(ls) for path, ls in moves.items()),
    )


def decay_applies(name: str) -> bool:
    """Whether weight decay applies to a tensor: not to biases and normalisation layers."""
    return _BIAS_OR_NORM.search(name) is None


def optimizer(training: TrainingConfig, trained: Trained) -> optax.GradientTransformationExtraArgs:
    """The recipe's optimizer but for the learning rate, with decoupled weight decay.

    Its `update` takes `finite`: where that is false, the state stays as it was. AdamW: Loshchilov
    & Hutter 2019, arXiv:1711.05101.
    """
    if training.optimizer == "adafactor":
        scale = adafactor(trained.stacks)
    else:
        scale = adam(training.adam_beta1, training.adam_beta2, training.adam_epsilon)
    decay = optax.add_decayed_weights(training.weight_decay, mask=dict(trained.decays))
    return optax.chain(scale, decay)


def clip(
    gradients: dict[str, jax.Array], max_norm: float, loss_scale: jax.Array | float = 1.0
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The gradients scaled down to a global norm of `max_norm` (0: as they are), and the norm.

    loss_scale: what the loss was multiplied by; gradients and norm are freed of it.
    """
    norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in gradients.values())) / loss_scale
    factor = jnp.float32(1.0)
    if max_norm:
        factor = jnp.minimum(1.0, max_norm / (norm + 1e-6))  # as torch's clip_grad_norm_
    # one factor, which is multiplied in where the gradients are used: no pass of its own
    factor = factor / loss_scale
    return {path: gradient * factor for path, gradient in gradients.items()}, norm


def moving_part(params: Mapping[str, jax.Array], trained: Trained) -> dict[str, jax.Array]:
    """Of flat parameters those that are trained; of stacks the layers that are."""
    return {
        path: params[path] if layers is None else params[path][layers]
        for path, layers in trained.layers.items()
    }


def put_back(
    params: Mapping[str, jax.Array], moving: Mapping[str, jax.Array], trained: Trained
) -> dict[str, jax.Array]:
    """Flat parameters with the trained ones in their places."""
    moved = {
        path: moving[path] if layers is None else params[path].at[layers].set(moving[path])
        for path, layers in trained.layers.items()
    }
    return {**params, **moved}


def put_back_in_pieces(
    params: Mapping[str, jax.Array], moving: Mapping[str, jax.Array], trained: Trained
) -> dict[str, Any]:
    """`put_back` for a loss that is differentiated by `moving`: stacks in part frozen are `Pieces`.

    So nothing of frozen layers is differentiated.
    """
    moved = {
        path: moving[path] if layers is None else in_pieces(params[path], moving[path], layers)
        for path, layers in trained.layers.items()
    }
    return {**params, **moved}


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters by path."""
    return convert.flatten(params, "/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `flatten`."""
    return convert.nest(flat, "/")
