"""captionkit's Flax backend, as its training and its captioner run it."""

from __future__ import annotations

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from shapes import LENGTH, NO_END, START, batch, parts
from transformers import GPT2Config, ViTConfig
from turns import peak_mib, seconds, serve

from captionkit.backends.flax.generate import generate
from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.optimizer import flatten, trained_tensors
from captionkit.backends.flax.step import (
    compile_step,
    initial_state,
    logits_of,
    normalised,
    train_step,
)
from captionkit.data.preprocess import Preprocessor
from captionkit.recipe import Decoding, TrainingConfig

FAMILY, PREPROCESS = family_of("vision-encoder-decoder"), Preprocessor.square(224)
kept: dict[str, Any] = {}


def prepare(size: str) -> None:
    """Make the model, with random weights."""
    vit, gpt2 = parts(size)
    decoder = GPT2Config(is_decoder=True, add_cross_attention=True, **gpt2).to_dict()
    values = {
        "model_type": "vision-encoder-decoder", "encoder": ViTConfig(**vit).to_dict(),
        "decoder": decoder, "decoder_start_token_id": START, "pad_token_id": START,
    }  # fmt: skip
    config = FAMILY.config.from_dict(json.loads(json.dumps(values)), "config.json")
    kept.update(config=config, params=FAMILY.init_params(config, 0))


def start_training(rows: int) -> float:
    """Seconds of compilation and first step."""
    config, device = kept["config"], jax.devices()[0]
    training = TrainingConfig(weight_decay=0.01, max_grad_norm=0.0, batch_size=rows)
    trained = trained_tensors(
        FAMILY.tensor_names(config),
        {path: leaf.shape for path, leaf in flatten(kept["params"]).items()}, (), FAMILY.untrained,
    )  # fmt: skip
    logits = logits_of(FAMILY, config, PREPROCESS, jnp.float32)
    step = functools.partial(train_step, logits=logits, training=training, trained=trained)
    kept["step"] = compile_step(step, [device])
    kept["state"] = jax.device_put(initial_state(kept["params"], training, trained, "fp32"), device)
    kept["batch"] = {name: array[None] for name, array in batch(rows).items()}
    return seconds(train)


def train() -> None:
    state, metrics = kept["step"](kept["state"], kept["batch"], np.float32(3e-5), jax.random.key(0))
    kept["state"] = jax.block_until_ready(state)
    float(metrics["loss_sum"])


def start_generating(rows: int, beams: int) -> float:
    """Seconds of compilation and first captions."""
    graphdef, _ = FAMILY.abstract(kept["config"])
    params = jax.device_put(kept["params"])
    weights = FAMILY.weights(graphdef, params)  # as FlaxCaptioner: once
    settings = Decoding(max_new_tokens=LENGTH, num_beams=beams)

    @jax.jit
    def encoded(params: Any, pixels: jax.Array) -> jax.Array:
        return FAMILY.encode(graphdef, params, normalised(pixels, PREPROCESS))

    def run() -> None:
        states = encoded(params, batch(rows)["pixels"])
        found = generate(
            FAMILY, graphdef, weights, states, settings, (START, (NO_END,), START), rows
        )
        jax.block_until_ready(found.ids)

    kept["generate"] = run
    return seconds(run)


if __name__ == "__main__":
    serve(
        {
            "prepare": prepare,
            "start_training": start_training,
            "train": lambda: seconds(train),
            "start_generating": start_generating,
            "generate": lambda: seconds(kept["generate"]),
            "peak": peak_mib,
        }
    )
