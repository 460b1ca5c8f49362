"""One optimizer update, as a plain function of arrays, and its compilation for the devices."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from captionkit.backends.flax.loss import IGNORED, caption_loss
from captionkit.backends.flax.optimizer import (
    Trained,
    clip,
    flatten,
    moving_part,
    optimizer,
    put_back,
    put_back_in_pieces,
    unflatten,
)
from captionkit.data.preprocess import Preprocessor
from captionkit.recipe import TrainingConfig

Batch = dict[str, Any]  # `pixels`, `input_ids`, `targets`, `mask`: see `train_step`
Metrics = dict[str, jax.Array]

_AXIS = "devices"
_FIRST_SCALE, _STEPS_TO_GROW = 2.0**15, 1000


class TrainState(NamedTuple):
    """All that an update changes.

    params: nested, float32. moments: the optimizer's, of the trained tensors. step: updates so far.
    loss_scale, whole_steps: what fp16 multiplies the loss by, and the updates since it last
    changed (always 1 and 0 in other precisions).
    """

    params: dict[str, Any]
    moments: Any
    step: jax.Array
    loss_scale: jax.Array
    whole_steps: jax.Array


def initial_state(
    params: dict[str, Any], training: TrainingConfig, trained: Trained, precision: str
) -> TrainState:
    """The state before the first update."""
    flat = flatten(params)
    moments = optimizer(training, trained).init(moving_part(flat, trained))
    scale = _FIRST_SCALE if precision == "fp16" else 1.0
    return TrainState(params, moments, jnp.int32(0), jnp.float32(scale), jnp.int32(0))


def train_step(
    state: TrainState,
    batch: Batch,
    learning_rate: jax.Array | float,
    key: jax.Array,
    *,
    logits: Callable[..., jax.Array],
    training: TrainingConfig,
    trained: Trained,
    axis: str | None = None,
    gradients_too: bool = False,
) -> Any:
    """One update: the gradient of the mean loss of a target token, clipped, into the optimizer.

    batch: with the passes in front, `pixels` `(passes, rows, height, width, 3)` uint8,
        `input_ids`, `targets` (IGNORED where nothing is learned) and `mask`
        `(passes, rows, length)`.
    key: of the run; the update's and the device's own dropout key is derived from it.
    logits: `(params, pixels, input_ids, mask, dropout_key)` -> `(rows, length, vocab)`. Of stacks
        in part frozen it gets `Pieces`.
    axis: the mapped axis that devices share the batch along. The sums are over all of them, so
        that neither their number nor that of the passes changes the result.

    Returns (state, metrics), with `gradients_too` (state, metrics, gradients by path). An update
    whose gradient overflows is left out, and counted in the metrics.
    """

    def over_devices(x: Any) -> Any:
        return x if axis is None else jax.lax.psum(x, axis)

    key = jax.random.fold_in(key, state.step)
    if axis is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
    params = flatten(state.params)
    moving = moving_part(params, trained)
    tokens = over_devices((batch["targets"] != IGNORED).sum())
    weight = state.loss_scale / jnp.maximum(tokens, 1)

    def pass_loss(moving: dict[str, jax.Array], rows: Batch, key: jax.Array) -> Any:
        whole = unflatten(put_back_in_pieces(params, moving, trained))
        scores = logits(whole, rows["pixels"], rows["input_ids"], rows["mask"], key)
        loss = caption_loss(scores, rows["targets"], training.label_smoothing)
        return loss * weight, loss

    def one_pass(sums: Any, inputs: Any) -> Any:
        rows, number = inputs
        (_, loss), gradients = jax.value_and_grad(pass_loss, has_aux=True)(
            moving, rows, jax.random.fold_in(key, number)
        )
        return jax.tree.map(jnp.add, sums, (loss, gradients)), None

    passes = batch["targets"].shape[0]
    sums = (jnp.float32(0), jax.tree.map(jnp.zeros_like, moving))
    if passes == 1:
        sums, _ = one_pass(sums, (jax.tree.map(lambda x: x[0], batch), 0))
    else:
        sums, _ = jax.lax.scan(one_pass, sums, (batch, jnp.arange(passes)))
    loss_sum, gradients = over_devices(sums)

    gradients, norm = clip(gradients, training.max_grad_norm, state.loss_scale)
    finite = jnp.isfinite(norm)
    updates, moments = optimizer(training, trained).update(
        gradients, state.moments, moving, finite=finite
    )
    moved = {
        path: jnp.where(finite, value - learning_rate * updates[path], value)
        for path, value in moving.items()
    }
    scale, whole = _next_scale(state, finite)
    state = TrainState(
        unflatten(put_back(params, moved, trained)), moments, state.step + 1, scale, whole
    )
    metrics = {
        "loss_sum": loss_sum,
        "tokens": tokens,
        "grad_norm": norm,
        "overflow": ~finite,
    }
    return (state, metrics, sums[1]) if gradients_too else (state, metrics)


def logits_of(
    family: Any, config: Any, preprocess: Preprocessor, dtype: Any, remat: bool = False
) -> Callable[..., jax.Array]:
    """The `logits` of `train_step` for a model family: uint8 pixels in, computed in `dtype`."""
    graphdef, _ = family.abstract(config)

    def logits(
        params: Any, pixels: jax.Array, input_ids: jax.Array, mask: jax.Array, key: jax.Array
    ) -> jax.Array:
        pixel_values = normalised(pixels, preprocess)
        return family.apply(
            graphdef, params, pixel_values, input_ids, mask,
            dropout_key=key, dtype=dtype, remat=remat,
        )  # fmt: skip

    return logits


def normalised(pixels: jax.Array, preprocess: Preprocessor) -> jax.Array:
    """uint8 `(..., 3)` to what the image encoder expects, on the device."""
    mean, std = jnp.array(preprocess.mean), jnp.array(preprocess.std)
    return (pixels.astype(jnp.float32) * preprocess.scale - mean) / std


def compile_step(step: Callable[..., Any], devices: Sequence[jax.Device]) -> Callable[..., Any]:
    """`step(state, batch, learning_rate, key)` over all devices; the old state's memory is reused.

    On several devices the batch has the devices in front, the state is the same on each. One needs
    no mapped axis, and compiles in half the time without.
    """
    if len(devices) == 1:
        on_cpu = devices[0].platform == "cpu"
        return _keeping_gradients(step) if on_cpu else jax.jit(step, donate_argnums=0)
    return jax.pmap(
        functools.partial(step, axis=_AXIS),
        axis_name=_AXIS,
        devices=devices,
        in_axes=(None, 0, None, None),
        out_axes=(None, None),
        donate_argnums=0,
    )


def _keeping_gradients(step: Callable[..., Any]) -> Callable[..., Any]:
    """Each update writes its gradients where those of the last one lay.

    A CPU gets its memory anew from the system in every step, a page at a time; for the gradients
    that took a tenth of a step with a small batch. Accelerators keep what they once had.
    """

    # traced once, for the shapes and for the compilation
    whole = jax.jit(functools.partial(step, gradients_too=True), inline=True)

    def with_gradients(state: TrainState, gradients: Any, *rest: Any) -> Any:
        del gradients  # only their memory is wanted
        state, metrics, gradients = whole(state, *rest)
        return (state, gradients), metrics

    compiled = jax.jit(
        with_gradients, donate_argnums=(0, 1), keep_unused=True, compiler_options=_quick_on_cpu()
    )
    kept: list[Any] = []

    def run(state: TrainState, *rest: Any) -> tuple[TrainState, Metrics]:
        if not kept:
            shapes = jax.eval_shape(whole, state, *rest)[2]
            # placed as the state is, and so those of later updates, or it would be compiled twice
            empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
            kept.append(jax.device_put(empty, state.step.sharding))
        (state, gradients), metrics = compiled(state, kept.pop(), *rest)
        kept.append(gradients)
        return state, metrics

    return run


def _quick_on_cpu() -> dict[str, Any]:
    """Options that halve the compilation; the time is in matrix products that LLVM never sees."""
    named = "xla_backend_optimization_level"
    return {} if named in os.environ.get("XLA_FLAGS", "") else {named: 1}


def _next_scale(state: TrainState, finite: jax.Array) -> tuple[jax.Array, jax.Array]:
    # as torch's GradScaler: halved on an overflow, doubled after long without one
    changes = state.loss_scale != 1.0
    whole = jnp.where(finite & changes, state.whole_steps + 1, 0)
    grown = jnp.where(whole == _STEPS_TO_GROW, state.loss_scale * 2, state.loss_scale)
    scale = jnp.where(finite, grown, jnp.maximum(state.loss_scale / 2, 2.0))
    return (
        jnp.where(changes, scale, state.loss_scale),
        jnp.where(whole == _STEPS_TO_GROW, 0, whole),
    )
