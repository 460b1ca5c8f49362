"""The captioning loss: next token, text positions only, padding ignored, the end token learned."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

IGNORED = -100  # the target at positions that are not learned


def caption_loss(
    logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Negative log-likelihood in nats, summed over the targets that are not IGNORED.

    logits: `(batch, length, vocab)`, position t scores the token after input t.
    targets: `(batch, length)`, already shifted.

    With label smoothing e the target keeps 1 - e and every other token gets e / (vocab - 1); the
    entropy of that distribution is subtracted, so that 0 stays the least possible loss (as in the
    Flax summarisation and captioning examples; Vaswani et al. 2017, section 5.4).
    """
    learned = targets != IGNORED
    logits, targets = logits[learned].float(), targets[learned]
    if not label_smoothing:
        return functional.cross_entropy(logits, targets, reduction="sum")
    vocab = logits.shape[-1]
    low = label_smoothing / (vocab - 1)
    confidence = 1.0 - label_smoothing
    log_probs = functional.log_softmax(logits, dim=-1)
    target_log_probs = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    others = log_probs.sum(-1) - target_log_probs
    entropy = -(confidence * math.log(confidence) + (vocab - 1) * low * math.log(low))
    return -(confidence * target_log_probs + low * others + entropy).sum()
