"""A GIT of any size with random weights, and training steps of it, for growth and limits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

END = 3  # a token that is never said: captions have the length that they may have


def write(
    folder: Path, layers: int = 4, width: int = 128, image_size: int = 96, vocabulary: int = 2000
) -> Path:
    """A checkpoint with `layers` layers in either encoder, patches of 16 pixels."""
    import torch
    from transformers import GitConfig, GitForCausalLM

    from captionkit.data.captions import build_word_tokenizer
    from captionkit.data.preprocess import Preprocessor

    torch.manual_seed(0)
    sizes = {
        "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 4 * width,
        "num_attention_heads": width // 32,
    }  # fmt: skip
    vision = {**sizes, "image_size": image_size, "patch_size": 16}
    model = GitForCausalLM(
        GitConfig(
            **sizes,
            vision_config=vision,
            vocab_size=vocabulary,
            max_position_embeddings=128,
            bos_token_id=2,
            eos_token_id=END,
            hidden_dropout_prob=0.0,
        )
    )
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = 2, END
    with torch.no_grad():
        model.output.bias[END] = -100.0
    model.save_pretrained(folder)
    words = " ".join(f"w{i}" for i in range(vocabulary - 4))
    build_word_tokenizer([words]).save_pretrained(folder)
    Preprocessor.square(image_size).save(folder)
    return folder


def images(count: int, size: int) -> list[np.ndarray]:
    """Noise, uint8."""
    return list(np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8))


def batch(rows: int, tokens: int, size: int, vocabulary: int) -> tuple[np.ndarray, ...]:
    """Pixels, input ids and targets of `rows` captions of so many tokens; no padding."""
    draw = np.random.default_rng(0)
    ids = draw.integers(4, vocabulary, (rows, tokens + 1)).astype(np.int32)
    return np.stack(images(rows, size)), ids[:, :-1], ids[:, 1:]


def torch_step(folder: Path, rows: int, tokens: int) -> Callable[[], None]:
    """One update of AdamW with clipping."""
    import torch

    from captionkit.backends.torch.captioner import normalised
    from captionkit.backends.torch.families import git
    from captionkit.backends.torch.loss import caption_loss
    from captionkit.backends.torch.weights import load_model
    from captionkit.data.preprocess import Preprocessor

    model, preprocess = load_model(folder).train(), Preprocessor.from_checkpoint(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    pixels, ids, targets = batch(rows, tokens, preprocess.height, model.config.vocab_size)
    inputs, labels = torch.from_numpy(ids).long(), torch.from_numpy(targets).long()
    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    mask = torch.ones_like(inputs)

    def step() -> None:
        logits = git.logits(model, normalised(floats, preprocess), inputs, mask)
        (caption_loss(logits, labels) / labels.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def flax_step(folder: Path, rows: int, tokens: int, devices: int = 1) -> Callable[[], None]:
    """The same; with several devices each takes an equal part of the rows."""
    import jax

    from captionkit.backends.flax.model_folder import open_model
    from captionkit.backends.flax.optimizer import flatten, trained_tensors
    from captionkit.backends.flax.parallel import parallel
    from captionkit.backends.flax.step import initial_state, logits_of, train_step
    from captionkit.recipe import TrainingConfig

    assert len(jax.devices()) >= devices, f"XLA_FLAGS gave {len(jax.devices())} devices"
    opened = open_model(folder, seed=0)
    training = TrainingConfig(learning_rate=5e-5, max_grad_norm=1.0, precision="fp32")
    shapes = {path: leaf.shape for path, leaf in flatten(opened.params).items()}
    trained = trained_tensors(opened.family.tensor_names(opened.config), shapes, ())
    together = parallel(jax.devices()[:devices], "pmap", 1, frozenset())
    logits = logits_of(opened.family, opened.config, opened.preprocess, np.float32)
    update = together.compile(
        functools.partial(train_step, logits=logits, training=training, trained=trained)
    )
    make = functools.partial(initial_state, training=training, trained=trained, precision="fp32")
    state = together.initial(make, opened.params)
    vocabulary = len(opened.tokenizer)
    pixels, ids, targets = batch(rows, tokens, opened.preprocess.height, vocabulary)
    arrays = {"pixels": pixels, "input_ids": ids, "targets": targets,
              "mask": np.ones_like(ids, bool)}  # fmt: skip
    # passes and rows, and behind one another the devices' parts
    shape = (1, rows) if devices == 1 else (devices, 1, rows // devices)
    arrays = {name: array.reshape(*shape, *array.shape[1:]) for name, array in arrays.items()}

    def step() -> None:
        nonlocal state
        placed = together.place_batch(arrays)
        state, metrics = update(state, placed, np.float32(5e-5), jax.random.key(0))
        jax.block_until_ready((state, metrics))

    return step
