"""One training step of GIT-base size on a CPU: ours beside the transformers guide's recipe.

The guide pads every caption to 512 tokens, takes the padding as targets, and has the vocabulary
computed at the image's positions too. Random weights: the arithmetic is the same.
"""

from __future__ import annotations

import numpy as np
import torch
from results import interleaved, report
from transformers import GitConfig, GitForCausalLM

from captionkit.backends.torch.batches import pad_captions
from captionkit.backends.torch.captioner import normalised
from captionkit.backends.torch.families import git
from captionkit.backends.torch.loss import IGNORED, caption_loss
from captionkit.data.preprocess import Preprocessor

BATCH = 2
CAPTION_TOKENS = (16, 13)  # with start and end: those of "a drawing of a pink and blue pokemon"
REPEATS = 5


def main() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    preprocess = Preprocessor.square(224)
    pixels = torch.from_numpy(rng.integers(0, 256, (BATCH, 3, 224, 224), np.uint8))
    captions = [[101, *rng.integers(1000, 30000, n - 2).tolist(), 102] for n in CAPTION_TOKENS]

    guide_model, our_model = GitForCausalLM(GitConfig()), GitForCausalLM(GitConfig())
    guide_optimizer = torch.optim.AdamW(guide_model.parameters(), lr=5e-5, fused=True)
    our_optimizer = torch.optim.AdamW(our_model.parameters(), lr=5e-5, fused=True)

    padded = torch.zeros(BATCH, 512, dtype=torch.long)
    mask = torch.zeros_like(padded)
    for row, ids in enumerate(captions):
        padded[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    floats = normalised(pixels, preprocess)

    def guide() -> None:
        output = guide_model(
            pixel_values=floats, input_ids=padded, attention_mask=mask, labels=padded
        )
        output.loss.backward()
        guide_optimizer.step()
        guide_optimizer.zero_grad()

    def ours() -> None:
        batch = pad_captions(captions, 0)
        logits = git.logits(
            our_model,
            normalised(pixels, preprocess),
            batch["input_ids"],
            batch["attention_mask"],
        )
        tokens = (batch["labels"] != IGNORED).sum()
        (caption_loss(logits, batch["labels"]) / tokens).backward()
        our_optimizer.step()
        our_optimizer.zero_grad()

    seconds = interleaved({"guide": guide, "captionkit": ours}, REPEATS)
    report("training_step", "GIT-base size, fp32, CPU, batch 2", seconds, target=2.2)


if __name__ == "__main__":
    main()
