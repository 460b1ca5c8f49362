"""The captioning loss: next token, text positions only, padding ignored, the end token learned."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

IGNORED = -100  # the target at positions that are not learned


def caption_loss(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Negative log-likelihood in nats, summed over the targets that are not IGNORED.

    logits: `(batch, length, vocab)`, position t scores the token after input t.
    targets: `(batch, length)`, already shifted.

    With label smoothing e the target keeps 1 - e and every other token gets e / (vocab - 1); the
    entropy of that distribution is subtracted, so that 0 stays the least possible loss (Vaswani et
    al. 2017, section 5.4).
    """
    learned = targets != IGNORED
    # zeroed before the softmax, for the gradient of a value that is not finite is not zero
    logits = jnp.where(learned[..., None], logits.astype(jnp.float32), 0.0)
    chosen = jnp.where(learned, targets, 0)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    # not gathered: the gradient would be a scatter into all logits, slower than all the rest
    is_target = jnp.arange(logits.shape[-1]) == chosen[..., None]
    loss = normaliser - jnp.where(is_target, logits, 0.0).sum(-1)
    if label_smoothing:
        vocab = logits.shape[-1]
        low = label_smoothing / (vocab - 1)
        confidence = 1.0 - label_smoothing
        others = vocab * normaliser - logits.sum(-1) - loss
        entropy = -(confidence * math.log(confidence) + (vocab - 1) * low * math.log(low))
        loss = confidence * loss + low * others - entropy
    return jnp.where(learned, loss, 0.0).sum()
