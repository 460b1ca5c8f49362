"""GIT-base size on a CPU, Flax beside torch: a training step, and captions of eight images.

Random weights: the arithmetic is the same. Training is beside captionkit's own torch backend;
captions are beside that and beside `GitForCausalLM.generate` of transformers. All do the same work:
captions do not end early, so every one of the tokens is computed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from results import interleaved, report

CAPTION_TOKENS = (16, 13)  # of the two captions of a training step, with start and end
NEW_TOKENS = 20
REPEATS = 7


def main() -> None:
    wanted = sys.argv[1:] or ["train", "greedy", "beams"]
    with tempfile.TemporaryDirectory() as folder:
        model = _random_git(Path(folder))
        if "train" in wanted:
            seconds = interleaved(_training_steps(model), REPEATS, warm_up=2)
            title = "GIT-base, one training step of 2 images, fp32, CPU"
            report("git_flax_training_step", title, seconds, target=1.0)
        for name, beams in (("greedy", 1), ("beams", 4)):
            if name in wanted:
                seconds = interleaved(_captioning(model, beams), REPEATS)
                title = f"GIT-base, 8 images, {NEW_TOKENS} tokens, {beams} beam(s), fp32, CPU"
                for peer in ("transformers", "torch"):
                    pair = {peer: seconds[peer], "flax": seconds["flax"]}
                    report(f"git_flax_{name}_against_{peer}", title, pair, target=1.25)


def _random_git(folder: Path) -> Path:
    """A checkpoint of GIT-base's size with a vocabulary of words, and an end that never comes."""
    import torch
    from transformers import GitConfig, GitForCausalLM

    from captionkit.data.captions import build_word_tokenizer
    from captionkit.data.preprocess import Preprocessor

    torch.manual_seed(0)
    config = GitConfig(bos_token_id=2, eos_token_id=3)
    model = GitForCausalLM(config)
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = 2, 3
    with torch.no_grad():
        model.output.bias[3] = -100.0
    model.save_pretrained(folder)
    words = " ".join(f"w{i}" for i in range(config.vocab_size - 4))
    build_word_tokenizer([words]).save_pretrained(folder)
    Preprocessor.square(224).save(folder)
    return folder


def _training_steps(folder: Path) -> dict:
    import functools

    import jax
    import torch

    from captionkit.backends.flax.batches import IGNORED
    from captionkit.backends.flax.model_folder import open_model
    from captionkit.backends.flax.optimizer import flatten, trained_tensors
    from captionkit.backends.flax.step import compile_step, initial_state, logits_of, train_step
    from captionkit.backends.torch.captioner import normalised
    from captionkit.backends.torch.families import git
    from captionkit.backends.torch.loss import caption_loss
    from captionkit.backends.torch.weights import load_model
    from captionkit.data.captions import decoder_pairs
    from captionkit.recipe import TrainingConfig

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(CAPTION_TOKENS), 224, 224, 3), np.uint8)
    captions = [[2, *rng.integers(1000, 30000, n - 2).tolist(), 3] for n in CAPTION_TOKENS]
    length = max(CAPTION_TOKENS) - 1
    ids = np.zeros((len(captions), length), np.int32)
    targets, mask = np.full_like(ids, IGNORED), np.zeros_like(ids)
    for row, caption in enumerate(captions):
        inputs, wanted = decoder_pairs(caption, 2)
        ids[row, : len(inputs)], targets[row, : len(wanted)], mask[row, : len(inputs)] = (
            inputs,
            wanted,
            1,
        )

    opened = open_model(folder, seed=0)
    training = TrainingConfig(learning_rate=5e-5, max_grad_norm=1.0, precision="fp32")
    shapes = {path: leaf.shape for path, leaf in flatten(opened.params).items()}
    trained = trained_tensors(opened.family.tensor_names(opened.config), shapes, ())
    logits = logits_of(opened.family, opened.config, opened.preprocess, np.float32)
    step = compile_step(
        functools.partial(train_step, logits=logits, training=training, trained=trained),
        jax.devices()[:1],
    )
    batch = {"pixels": pixels[None], "input_ids": ids[None], "targets": targets[None],
             "mask": mask[None].astype(bool)}  # fmt: skip
    state = initial_state(jax.tree.map(jax.numpy.asarray, opened.params), training, trained, "fp32")

    def flax() -> None:
        nonlocal state
        state, metrics = step(state, batch, np.float32(5e-5), jax.random.key(0))
        jax.block_until_ready(metrics)

    model = load_model(folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    tensors = [torch.from_numpy(array).long() for array in (ids, mask, targets)]

    def torch_step() -> None:
        scores = git.logits(model, normalised(images, opened.preprocess), *tensors[:2])
        tokens = (tensors[2] != IGNORED).sum()
        (caption_loss(scores, tensors[2]) / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return {"torch": torch_step, "flax": flax}


def _captioning(folder: Path, beams: int) -> dict:
    import torch
    from transformers import AutoImageProcessor, GitForCausalLM

    import captionkit

    images = list(np.random.default_rng(1).integers(0, 256, (8, 224, 224, 3), np.uint8))
    model = GitForCausalLM.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def plain() -> None:
        pixel_values = processor(images, return_tensors="pt").pixel_values
        model.generate(
            pixel_values=pixel_values, num_beams=beams, do_sample=False, max_new_tokens=NEW_TOKENS
        )

    contestants = {"transformers": plain}
    for backend in ("torch", "flax"):
        captioner = captionkit.load(folder, backend=backend, device="cpu")
        contestants[backend] = lambda captioner=captioner: captioner.caption(
            images, num_beams=beams, max_new_tokens=NEW_TOKENS
        )
    return contestants


if __name__ == "__main__":
    main()
