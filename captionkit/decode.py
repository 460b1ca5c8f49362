"""From generated tokens to captions; the same for every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from captionkit.types import Caption


def decode_captions(
    tokenizer: Any,
    ids: Sequence[Sequence[int]],
    log_probs: Sequence[Sequence[float]],
    token_probabilities: bool = False,
    prompt: Sequence[int] = (),
) -> list[Caption]:
    """One `Caption` for each row of token ids.

    ids: without the start token, up to and with the end token where there is one.
    log_probs: natural logarithms of the probability of each, by the model's own distribution.
    prompt: ids that every text begins with.
    """
    texts = tokenizer.batch_decode([[*prompt, *row] for row in ids], skip_special_tokens=True)
    return [
        Caption(
            text.strip(),
            math.fsum(logs) / len(logs),
            _probabilities(tokenizer, prompt, row, logs, text) if token_probabilities else None,
        )
        for text, row, logs in zip(texts, ids, log_probs, strict=True)
    ]


def _probabilities(
    tokenizer: Any,
    prompt: Sequence[int],
    ids: Sequence[int],
    log_probs: Sequence[float],
    text: str,
) -> tuple[tuple[str, float], ...]:
    """The piece of the text that each token adds, with the token's probability.

    A token is not always a piece of text by itself: bytes of one character may be several tokens,
    and tokenizers join pieces by rules. So a piece is what the text's beginning grows by.
    """
    whole = [*prompt, *ids]
    beginnings = tokenizer.batch_decode(
        [whole[:end] for end in range(len(prompt), len(whole) + 1)], skip_special_tokens=True
    )
    stripped = text.strip()
    blank = len(text) - len(text.lstrip())
    pieces, done = [], 0
    for beginning in beginnings:
        common = next(
            (i for i, (a, b) in enumerate(zip(beginning, text, strict=False)) if a != b),
            min(len(beginning), len(text)),
        )
        end = max(done, min(common - blank, len(stripped)))
        pieces.append(stripped[done:end])
        done = end
    # rounding may leave a logarithm a little above zero
    added = pieces[1:]  # the first is the prompt's
    return tuple(
        (piece, min(1.0, math.exp(log))) for piece, log in zip(added, log_probs, strict=True)
    )
