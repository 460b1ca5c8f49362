"""A training step with an image encoder frozen, whole or its lower half, beside one without.

ViT-B and GPT-2, random weights. What freezing promises is counted: the operations of a whole step
by those of a step with so much frozen (torch's own counter; the arithmetic of the two backends is
the same). The target is 85 % of that. Both optimizer updates and clipping are in the times.
`python bench_frozen.py flax_half` runs one of torch, flax and flax_half.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from results import interleaved, report

BATCH, LENGTH = 4, 15
REPEATS = 7
SHARE = 0.85


def main() -> None:
    encoder = ("frozen encoder", ("encoder",))
    half = ("lower half frozen", ("encoder.embeddings.*", "encoder.encoder.layer.[0-5].*"))
    cases = {
        "torch": (_torch_step, *encoder), "flax": (_flax_step, *encoder),
        "flax_half": (_flax_step, *half),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model = _random_model(Path(folder))
        for name in sys.argv[1:] or cases:
            step, frozen, freeze = cases[name]
            promised = _operations(model, ()) / _operations(model, freeze)
            print(f"counted operations promise {promised:.2f}x")
            steps = {"whole": step(model, ()), frozen: step(model, freeze)}
            seconds = interleaved(steps, REPEATS, warm_up=2)
            backend = name.partition("_")[0]
            title = f"ViT-B + GPT-2, one step of {BATCH} images, fp32, CPU, {backend}"
            report(f"frozen_{name}", title, seconds, target=round(SHARE * promised, 3))


def _random_model(folder: Path) -> Path:
    import torch
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
    )

    from captionkit.data.captions import build_word_tokenizer
    from captionkit.data.preprocess import Preprocessor

    torch.manual_seed(0)
    decoder = GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 2, 3, 0
    VisionEncoderDecoderModel(config).save_pretrained(folder)
    build_word_tokenizer(["a b c"]).save_pretrained(folder)
    Preprocessor.square(224).save(folder)
    return folder


def _batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, input ids and targets."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (BATCH, 224, 224, 3), np.uint8)
    ids = draw.integers(1000, 50000, (BATCH, LENGTH + 1)).astype(np.int32)
    return pixels, ids[:, :-1], ids[:, 1:]


def _torch_step(folder: Path, freeze: tuple[str, ...]) -> Callable[[], None]:
    import torch

    from captionkit.backends.torch.captioner import normalised
    from captionkit.backends.torch.families import vision_encoder_decoder
    from captionkit.backends.torch.loss import caption_loss
    from captionkit.backends.torch.train import freeze as freeze_tensors
    from captionkit.backends.torch.weights import load_model
    from captionkit.data.preprocess import Preprocessor

    pixels, ids, targets = _batch()
    model, preprocess = load_model(folder).train(), Preprocessor.from_checkpoint(folder)
    freeze_tensors(model, freeze)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, fused=True)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    input_ids, labels = torch.from_numpy(ids).long(), torch.from_numpy(targets).long()

    def step() -> None:
        logits = vision_encoder_decoder.logits(
            model, normalised(images, preprocess), input_ids, torch.ones_like(input_ids)
        )
        (caption_loss(logits, labels) / labels.numel()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _flax_step(folder: Path, freeze: tuple[str, ...]) -> Callable[[], None]:
    import jax

    from captionkit.backends.flax.model_folder import open_model
    from captionkit.backends.flax.optimizer import flatten, trained_tensors
    from captionkit.backends.flax.step import compile_step, initial_state, logits_of, train_step
    from captionkit.recipe import TrainingConfig

    pixels, ids, targets = _batch()
    model = open_model(folder, seed=0)
    family, training = model.family, TrainingConfig(precision="fp32")
    shapes = {path: leaf.shape for path, leaf in flatten(model.params).items()}
    trained = trained_tensors(
        family.tensor_names(model.config), shapes, freeze, family.untrained, family.model_type
    )
    logits = logits_of(family, model.config, model.preprocess, np.float32)
    update = compile_step(
        functools.partial(train_step, logits=logits, training=training, trained=trained),
        jax.devices()[:1],
    )
    batch = {"pixels": pixels[None], "input_ids": ids[None], "targets": targets[None],
             "mask": np.ones_like(ids, bool)[None]}  # fmt: skip
    params = jax.tree.map(jax.numpy.asarray, model.params)
    state = initial_state(params, training, trained, "fp32")

    def step() -> None:
        nonlocal state
        state, metrics = update(state, batch, np.float32(5e-5), jax.random.key(0))
        jax.block_until_ready(metrics)

    return step


def _operations(folder: Path, freeze: tuple[str, ...]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    step = _torch_step(folder, freeze)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
