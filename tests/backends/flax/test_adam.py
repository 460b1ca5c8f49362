"""Adam: the numbers of optax's, without copies of the moments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from captionkit.backends.flax.adam import adam

SETTINGS = (0.8, 0.95, 1e-5)
SHAPE = (300, 1000)


def values(seed, scale=1.0):
    draw = np.random.default_rng(seed)
    return {name: jnp.float32(scale * draw.normal(size=SHAPE)) for name in ("a", "b")}


def test_updates_and_state_are_those_of_optax():
    ours, theirs = adam(*SETTINGS), optax.scale_by_adam(*SETTINGS)
    state, expected_state = ours.init(values(0)), theirs.init(values(0))
    for step in range(5):
        gradients = values(step + 1, scale=10.0**-step)
        updates, state = jax.jit(ours.update)(gradients, state)
        expected, expected_state = theirs.update(gradients, expected_state)
        for found, wanted in ((updates, expected), (state, expected_state)):
            assert jax.tree.structure(found) == jax.tree.structure(wanted)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7)


def test_the_state_stays_where_a_gradient_is_not_finite():
    ours = adam(*SETTINGS)
    _, state = ours.update(values(1), ours.init(values(0)))
    broken = {name: value.at[0, 0].set(jnp.inf) for name, value in values(2).items()}
    _, kept = jax.jit(ours.update)(broken, state, finite=jnp.asarray(False))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def bytes_beside_the_arguments(step):
    """What a donated step of parameters and moments needs besides them, compiled."""
    params, state = values(0), optax.scale_by_adam(*SETTINGS).init(values(0))
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, values(1), 1.0).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def moved(params, updates, finite):
    return jax.tree.map(lambda p, u: jnp.where(finite, p - 0.1 * u, p), params, updates)


def with_ours(params, state, gradients, norm):
    finite = jnp.isfinite(norm)
    updates, state = adam(*SETTINGS).update(gradients, state, finite=finite)
    return moved(params, updates, finite), state


def with_optax(params, state, gradients, norm):
    finite = jnp.isfinite(norm)
    updates, new = optax.scale_by_adam(*SETTINGS).update(gradients, state)
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
    return moved(params, updates, finite), state


def test_the_moments_move_where_they_lie():
    tensor = 4 * SHAPE[0] * SHAPE[1]
    assert bytes_beside_the_arguments(with_ours) < tensor / 10
    # where this no longer holds, optax's own will do
    assert bytes_beside_the_arguments(with_optax) > tensor
