"""The loss against a brute-force version in numpy, token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from captionkit.backends.torch.batches import pad_captions
from captionkit.backends.torch.loss import IGNORED, caption_loss


def by_hand(logits, targets, smoothing):
    total = 0.0
    vocab = logits.shape[-1]
    for row, target_row in zip(logits, targets):
        for scores, target in zip(row, target_row):
            if target == IGNORED:
                continue
            scores = scores.astype(np.float64)
            log_probs = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
            wanted = np.full(vocab, smoothing / (vocab - 1))
            wanted[target] = 1 - smoothing
            entropy = -sum(p * math.log(p) for p in wanted if p > 0)
            total += -(wanted * log_probs).sum() - entropy
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_and_gradient_equal_the_brute_force_version(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 11)) * 4
    targets = rng.integers(0, 11, size=(3, 5))
    targets[0, 3:] = targets[2, 1:] = IGNORED
    tensor = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    loss = caption_loss(tensor, torch.tensor(targets), smoothing)
    assert loss.item() == pytest.approx(by_hand(logits, targets, smoothing), rel=1e-5)
    loss.backward()
    step = 1e-5
    for index in [(0, 0, 0), (1, 4, 7), (0, 4, 2), (2, 0, 10)]:
        up, down = logits.copy(), logits.copy()
        up[index] += step
        down[index] -= step
        slope = (by_hand(up, targets, smoothing) - by_hand(down, targets, smoothing)) / (2 * step)
        assert tensor.grad[index].item() == pytest.approx(slope, abs=1e-4)


def test_the_least_loss_is_zero_with_smoothing_too():
    vocab, smoothing = 7, 0.2
    wanted = torch.full((1, 1, vocab), smoothing / (vocab - 1))
    wanted[0, 0, 3] = 1 - smoothing
    assert caption_loss(wanted.log(), torch.tensor([[3]]), smoothing).item() == pytest.approx(
        0, abs=1e-6
    )


def test_ignored_positions_have_no_gradient_even_where_they_are_not_finite():
    logits = torch.zeros(1, 2, 4, requires_grad=True)
    with torch.no_grad():
        logits[0, 1] = float("inf")
    loss = caption_loss(logits, torch.tensor([[1, IGNORED]]))
    assert loss.item() == pytest.approx(math.log(4))
    loss.backward()
    assert logits.grad[0, 1].abs().sum() == 0


def test_half_precision_logits_are_summed_in_full():
    logits = torch.randn(64, 32, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.randint(0, 50, (64, 32), generator=torch.Generator().manual_seed(1))
    exact = by_hand(logits.float().numpy(), targets.numpy(), 0.0)
    assert caption_loss(logits, targets).item() == pytest.approx(exact, rel=1e-5)


def test_padding_keeps_the_end_token_and_nothing_after_it():
    batch = pad_captions([[2, 7, 8, 3], [2, 9, 3]], pad_token_id=0)
    assert batch["input_ids"].tolist() == [[2, 7, 8], [2, 9, 0]]
    assert batch["labels"].tolist() == [[7, 8, 3], [9, 3, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_the_end_token_is_learned_also_where_it_is_the_padding_token():
    batch = pad_captions([[5, 7, 0], [5, 0]], pad_token_id=0)
    assert batch["labels"].tolist() == [[7, 0], [0, IGNORED]]
