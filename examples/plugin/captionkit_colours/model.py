"""The model: its arithmetic, its gradients, and its files.

The next token of a caption depends on a grid of mean colours, on the token before and on the
position:

    hidden = relu(colours @ image + token[before] + position)
    logits = hidden @ output + bias
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captionkit.data.captions import save_tokenizer, special_ids
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError
from captionkit.models import has_weights, load_tokenizer
from captionkit.recipe import Decoding
from captionkit.tensors import TensorFiles

Tensors = dict[str, np.ndarray]
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Config:
    """config.json. The vocabulary and its special tokens are those of the tokenizer."""

    image_size: int = 32
    grid: int = 4  # rows and columns of mean colours
    hidden_size: int = 64
    positions: int = 32
    model_type: str = "colours"

    @classmethod
    def of(cls, folder: Path) -> Config:
        """The config of a folder. Raises CheckpointError for a value that is unknown or wrong."""
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = asdict(cls())
        for name, value in values.items():
            if name not in known or type(value) is not type(known[name]):
                raise CheckpointError(
                    f"{folder / 'config.json'} says {name}={value!r}, which the backend 'colours' "
                    f"does not know. It knows {', '.join(known)}."
                )
        config = cls(**values)
        if config.image_size % config.grid:
            raise CheckpointError(f"{folder}: image_size has to be a multiple of grid.")
        return config


@dataclass
class Model:
    """Weights and what belongs to them."""

    config: Config
    tensors: Tensors
    tokenizer: Any
    preprocess: Preprocessor

    def __post_init__(self) -> None:
        self.start, self.end, self.pad = special_ids(self.tokenizer)

    # ---- arithmetic ------------------------------------------------------------------------

    def colours(self, pixels: np.ndarray) -> np.ndarray:
        """The mean colour of each cell, from -1 to 1: uint8 `(h, w, 3)` -> `(grid * grid * 3,)`."""
        grid = self.config.grid
        height, width = pixels.shape[0] // grid, pixels.shape[1] // grid
        cells = pixels[: height * grid, : width * grid].reshape(grid, height, grid, width, 3)
        return (cells.mean(axis=(1, 3)) / 127.5 - 1).ravel().astype(np.float32)

    def logits(self, colours: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Of the token after each: `(batch, cells)`, `(batch, length)` -> `(..., vocab)`."""
        return (
            _relu(self._hidden(colours, ids)) @ self.tensors["output.weight"]
            + (self.tensors["output.bias"])
        )

    def loss_and_gradients(
        self, colours: np.ndarray, ids: np.ndarray, targets: np.ndarray, mask: np.ndarray
    ) -> tuple[float, Tensors]:
        """Mean negative log-likelihood of the targets where the mask is True, and its gradients."""
        before = self._hidden(colours, ids)
        hidden = _relu(before)
        log_probs = log_softmax(
            hidden @ self.tensors["output.weight"] + self.tensors["output.bias"]
        )
        rows, columns = np.nonzero(mask)
        loss = -log_probs[rows, columns, targets[rows, columns]].mean()

        by_logits = np.exp(log_probs) * mask[..., None]
        by_logits[rows, columns, targets[rows, columns]] -= 1
        by_logits /= len(rows)
        by_hidden = (by_logits @ self.tensors["output.weight"].T) * (before > 0)
        by_token = np.zeros_like(self.tensors["text.token"])
        np.add.at(by_token, ids, by_hidden)
        by_position = np.zeros_like(self.tensors["text.position"])
        by_position[: ids.shape[1]] = by_hidden.sum(axis=0)
        return float(loss), {
            "image.weight": colours.T @ by_hidden.sum(axis=1),
            "text.token": by_token,
            "text.position": by_position,
            "output.weight": np.tensordot(hidden, by_logits, axes=((0, 1), (0, 1))),
            "output.bias": by_logits.sum(axis=(0, 1)),
        }

    def _hidden(self, colours: np.ndarray, ids: np.ndarray) -> np.ndarray:
        image = (colours @ self.tensors["image.weight"])[:, None]
        text = self.tensors["text.token"][ids] + self.tensors["text.position"][: ids.shape[1]]
        return image + text

    # ---- files -----------------------------------------------------------------------------

    @classmethod
    def open(cls, folder: Path, seed: int = 0, trust_remote_code: bool = False) -> Model:
        """The model of a folder; random weights where it has none. Raises CheckpointError."""
        config = Config.of(folder)
        tokenizer = load_tokenizer(folder, trust_remote_code)
        first = _initial(config, len(tokenizer), seed)
        tensors = _read(folder, first) if has_weights(folder) else first
        return cls(config, tensors, tokenizer, Preprocessor.from_checkpoint(folder))

    def save(self, folder: Path, decoding: Decoding) -> None:
        """Write a folder that `open` and captionkit read."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_tokenizer(self.tokenizer, folder)
        self.preprocess.save(folder)
        generation = {
            "bos_token_id": self.start, "eos_token_id": self.end, "pad_token_id": self.pad,
            "max_new_tokens": decoding.max_new_tokens, "num_beams": decoding.num_beams,
        }  # fmt: skip
        for name, values in (("config", asdict(self.config)), ("generation_config", generation)):
            (folder / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
        save_file(self.tensors, folder / WEIGHTS, metadata={"format": "pt"})


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, exact also for large values."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0)


def _initial(config: Config, vocabulary: int, seed: int) -> Tensors:
    draw = np.random.default_rng(seed)
    width, cells = config.hidden_size, 3 * config.grid**2
    shapes = {
        "image.weight": (cells, width), "text.token": (vocabulary, width),
        "text.position": (config.positions, width), "output.weight": (width, vocabulary),
    }  # fmt: skip
    tensors = {
        name: draw.normal(0, shape[0] ** -0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    return {**tensors, "output.bias": np.zeros(vocabulary, np.float32)}


def _read(folder: Path, expected: Tensors) -> Tensors:
    files = TensorFiles(folder)
    missing, unknown = (
        sorted(expected.keys() - files.keys()),
        sorted(files.keys() - expected.keys()),
    )
    if missing or unknown:
        raise CheckpointError(f"{folder / WEIGHTS}: missing {missing}, not known {unknown}.")
    tensors = {name: np.array(files[name], np.float32) for name in expected}
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{folder / WEIGHTS}: {name} has the shape {tensor.shape}, and config.json and the "
                f"tokenizer ask for {expected[name].shape}."
            )
    return tensors
