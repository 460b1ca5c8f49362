"""The backend: what it runs, what it refuses, and where its work is done.

This module is imported by `captionkit backends`, so it imports nothing that takes time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from captionkit.errors import ConfigError
from captionkit.processes import launched
from captionkit.settings import check_types, require

if TYPE_CHECKING:
    from captionkit.recipe import Recipe
    from captionkit.types import Captioner, TrainingJob


@dataclass(frozen=True)
class ColoursOptions:
    """Settings that only this backend has; given flat, `colour_noise=0.1` or `--colour-noise`."""

    colour_noise: float = 0.0
    """Standard deviation of what is added to the colours in training; black is -1, white 1."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "colour_noise", self.colour_noise >= 0, "0 or more")


class ColoursBackend:
    """numpy: one hidden layer over a grid of mean colours. It sees colours, and nothing else."""

    name: ClassVar[str] = "colours"
    model_types: ClassVar[frozenset[str]] = frozenset({"colours"})
    options_type: ClassVar[type | None] = ColoursOptions

    def missing(self) -> str | None:
        """None: numpy is there wherever captionkit is."""
        return None

    def check(self, recipe: Recipe, options: ColoursOptions) -> None:
        """Raise ConfigError for every setting that this backend would not honour."""
        training = recipe.training
        if launched()[1] > 1:
            raise ConfigError("The backend 'colours' runs in one process. Start it without others.")
        if training.precision not in ("auto", "fp32"):
            raise ConfigError("The backend 'colours' computes in precision='fp32' only.")
        if training.optimizer != "adamw":
            raise ConfigError("The backend 'colours' has optimizer='adamw' only.")
        if training.label_smoothing:
            raise ConfigError("The backend 'colours' has no label_smoothing. Leave it at 0.")
        if recipe.decoding.do_sample:
            raise ConfigError("The backend 'colours' does not sample. Leave do_sample out.")
        # accumulation_steps and gradient_checkpointing change no result, and memory is no matter

    def train(self, job: TrainingJob) -> Path:
        """Train as the job says; returns the folder with the finished model."""
        from captionkit_colours.train import train

        return train(job)

    def load(
        self,
        checkpoint: Path,
        device: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
    ) -> Captioner:
        """Load a checkpoint folder for captioning. Raises `CheckpointError`, `ConfigError`."""
        from captionkit_colours.captioner import load_captioner

        if device not in (None, "cpu") or dtype not in (None, "fp32"):
            raise ConfigError("The backend 'colours' runs with device='cpu' and dtype='fp32' only.")
        return load_captioner(checkpoint, trust_remote_code)
