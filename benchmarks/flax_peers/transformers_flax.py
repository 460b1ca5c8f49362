"""FlaxVisionEncoderDecoderModel of transformers 4.57, trained as its example script does it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from flax.training.common_utils import onehot
from shapes import LENGTH, NO_END, START, batch, parts
from transformers import (
    FlaxVisionEncoderDecoderModel,
    GPT2Config,
    VisionEncoderDecoderConfig,
    ViTConfig,
)
from turns import peak_mib, seconds, serve

kept: dict[str, Any] = {}


def prepare(size: str) -> None:
    """Make the model, with random weights."""
    vit, gpt2 = parts(size)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**vit), GPT2Config(**gpt2)
    )
    config.decoder_start_token_id = config.pad_token_id = START
    kept["model"] = FlaxVisionEncoderDecoderModel(config)


def start_training(rows: int) -> float:
    """Seconds of compilation and first step."""
    model = kept["model"]
    data = batch(rows)
    pixels = ((data["pixels"] / 255 - 0.5) / 0.5).astype("float32").transpose(0, 3, 1, 2)
    optimizer = optax.adamw(3e-5, weight_decay=0.01, mask=decay_mask)

    def loss_of(params: Any, key: jax.Array) -> jax.Array:
        logits = model(
            pixels, data["input_ids"], decoder_attention_mask=data["mask"], params=params,
            dropout_rng=key, train=True,
        ).logits  # fmt: skip
        loss = optax.softmax_cross_entropy(logits, onehot(data["targets"], logits.shape[-1]))
        return (loss * data["mask"]).sum() / data["mask"].sum()

    def step(params: Any, state: Any, key: jax.Array) -> Any:
        key, used = jax.random.split(key)
        loss, gradients = jax.value_and_grad(loss_of)(params, used)
        loss, gradients = jax.lax.pmean((loss, gradients), "batch")
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, key, loss

    # the example maps its step over the devices, also where there is one
    kept["step"] = jax.pmap(step, "batch", donate_argnums=(0, 1))
    params = jax.tree.map(jnp.array, model.params)  # the model keeps its own
    first = params, jax.jit(optimizer.init)(params), jax.random.key(0)
    kept["state"] = jax.tree.map(lambda x: x[None], first)
    del params, first
    return seconds(train)


def train() -> None:
    *state, loss = kept["step"](*kept["state"])
    kept["state"] = jax.block_until_ready(state)
    float(loss[0])


def decay_mask(params: Any) -> Any:
    flat = traverse_util.flatten_dict(params)
    decays = {path: path[-1] not in ("bias", "scale") for path in flat}
    return traverse_util.unflatten_dict(decays)


def start_generating(rows: int, beams: int) -> float:
    """Seconds of compilation and first captions."""
    pixels = ((batch(rows)["pixels"] / 255 - 0.5) / 0.5).astype("float32").transpose(0, 3, 1, 2)
    model = kept["model"]

    @jax.jit
    def generate(params: Any) -> jax.Array:
        return model.generate(
            pixels, params=params, max_length=LENGTH + 1, num_beams=beams, do_sample=False,
            eos_token_id=NO_END, pad_token_id=START, decoder_start_token_id=START,
        ).sequences  # fmt: skip

    kept["generate"] = lambda: generate(model.params).block_until_ready()
    return seconds(kept["generate"])


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
