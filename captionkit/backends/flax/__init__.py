"""The Flax backend: training and generation in JAX, for models that torch and transformers read.

This module imports no JAX, so that `captionkit backends` and `--help` start at once.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from captionkit.backends.flax.options import FlaxOptions

if TYPE_CHECKING:
    from captionkit.recipe import Recipe
    from captionkit.types import Captioner, TrainingJob


class FlaxBackend:
    """JAX: data parallelism over all devices, one compiled step, stacked and scanned layers."""

    name: ClassVar[str] = "flax"
    model_types: ClassVar[frozenset[str]] = frozenset({"blip", "git", "vision-encoder-decoder"})
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("vit", "deit", "clip_vision_model", "dinov2"),
        "decoder": ("gpt2", "bert"),
    }
    options_type: ClassVar[type | None] = FlaxOptions

    def missing(self) -> str | None:
        """None where JAX and what goes with it are installed, else the command that installs it."""
        if all(find_spec(name) for name in ("jax", "flax", "optax", "orbax")):
            return None
        return 'pip install "captionkit[flax]"'

    def check(self, recipe: Recipe, options: Any) -> None:
        """Raise ConfigError for devices, a batch or a precision that do not fit this machine."""
        from captionkit.backends.flax.devices import check

        check(recipe.training, options)

    def connect(self) -> None:
        """Connect the run's processes, where there are several. Raises `ProcessError`."""
        from captionkit.backends.flax.processes import connect

        connect()

    def train(self, job: TrainingJob) -> Path:
        """Train as the job says; returns the folder with the finished model."""
        from captionkit.backends.flax.train import train

        return train(job)

    def load(
        self,
        checkpoint: Path,
        device: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
    ) -> Captioner:
        """Load a checkpoint folder for captioning. Raises `CheckpointError`, `ConfigError`."""
        from captionkit.backends.flax.captioner import load_captioner

        return load_captioner(checkpoint, device, dtype, trust_remote_code)
