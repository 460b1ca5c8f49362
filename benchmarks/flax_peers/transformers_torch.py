"""VisionEncoderDecoderModel.generate of torch."""

from __future__ import annotations

from typing import Any

import torch
from shapes import LENGTH, NO_END, START, batch, parts
from transformers import (
    GenerationConfig,
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)
from turns import seconds, serve

kept: dict[str, Any] = {}


def prepare(size: str) -> None:
    """Make the model, with random weights."""
    vit, gpt2 = parts(size)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**vit), GPT2Config(**gpt2)
    )
    kept["model"] = VisionEncoderDecoderModel(config=config).eval()


@torch.inference_mode()
def start_generating(rows: int, beams: int) -> float:
    """Seconds of the first captions."""
    pixels = torch.from_numpy(batch(rows)["pixels"]).permute(0, 3, 1, 2)
    settings = GenerationConfig(
        max_new_tokens=LENGTH, num_beams=beams, do_sample=False, eos_token_id=NO_END,
        pad_token_id=START, bos_token_id=START, decoder_start_token_id=START,
    )  # fmt: skip

    @torch.inference_mode()
    def run() -> None:
        floats = (pixels.float() / 255 - 0.5) / 0.5
        ids = kept["model"].generate(pixel_values=floats, generation_config=settings)
        assert ids.shape == (rows, LENGTH + 1)

    kept["generate"] = run
    return seconds(run)


if __name__ == "__main__":
    serve(
        {
            "prepare": prepare,
            "start_generating": start_generating,
            "generate": lambda: seconds(kept["generate"]),
        }
    )
