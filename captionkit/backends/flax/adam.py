"""Adam (Kingma & Ba 2015, arXiv:1412.6980) that moves its moments where they lie.

optax's `scale_by_adam` gives the same numbers, but cannot leave out an update that is not finite.
Selected afterwards, the old moments are needed while the new ones overwrite them, and XLA copies
them all in every step: an eighth of the time of a small batch, and two more models in memory. Here
the selected moments are final before anything is computed from them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformationExtraArgs:
    """Adam but for the learning rate, on a flat dict of parameters; the state is that of optax.

    `update` takes `finite`, a boolean array: where it is false the state stays as it was, and the
    updates are not to be used.
    """

    def update(
        gradients: dict[str, jax.Array],
        state: optax.ScaleByAdamState,
        params: object = None,
        *,
        finite: jax.Array | bool = True,
        **_: object,
    ) -> tuple[dict[str, jax.Array], optax.ScaleByAdamState]:
        del params
        count = optax.safe_increment(state.count)
        correction1, correction2 = 1 - beta1**count, 1 - beta2**count
        mu, nu, updates = {}, {}, {}
        for path, gradient in gradients.items():
            m, v = state.mu[path], state.nu[path]
            m = jnp.where(finite, beta1 * m + (1 - beta1) * gradient, m)
            v = jnp.where(finite, beta2 * v + (1 - beta2) * jnp.square(gradient), v)
            # without the barrier XLA would compute them once more, from the old ones
            m, v = jax.lax.optimization_barrier((m, v))
            updates[path] = (m / correction1) / (jnp.sqrt(v / correction2) + epsilon)
            mu[path], nu[path] = m, v
        return updates, optax.ScaleByAdamState(jnp.where(finite, count, state.count), mu, nu)

    init = optax.scale_by_adam(beta1, beta2, epsilon).init
    return optax.GradientTransformationExtraArgs(init, update)
