"""The PyTorch backend: Hugging Face `Trainer` for training, `generate` for captions.

This module imports no torch, so that `captionkit backends` and `--help` start at once.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from captionkit.backends.torch.options import TorchOptions
from captionkit.errors import ConfigError
from captionkit.processes import launched

if TYPE_CHECKING:
    from captionkit.recipe import Recipe
    from captionkit.types import Captioner, TrainingJob


class TorchBackend:
    """PyTorch: Hugging Face Trainer, one small adapter a model family."""

    name: ClassVar[str] = "torch"
    model_types: ClassVar[frozenset[str]] = frozenset({"blip", "git", "vision-encoder-decoder"})
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "encoder": ("vit", "deit", "beit", "dinov2", "swin", "clip_vision_model",
                    "siglip_vision_model"),
        "decoder": ("gpt2", "bert", "roberta", "xlm-roberta", "camembert"),
    }  # fmt: skip
    options_type: ClassVar[type | None] = TorchOptions

    def missing(self) -> str | None:
        """None where torch and accelerate are installed, else the command that installs them."""
        if find_spec("torch") and find_spec("accelerate"):
            return None
        return 'pip install "captionkit[torch]"'

    def check(self, recipe: Recipe, options: Any) -> None:
        """Raise ConfigError for a device, a precision or a batch that does not fit this machine."""
        from captionkit.backends.torch.device import choose_device, choose_precision

        device = choose_device(options.device)
        if options.device is not None and device.type == "cuda" and device.index:
            raise ConfigError(
                f"Training runs on the first visible GPU. Instead of device={options.device!r} set "
                f"CUDA_VISIBLE_DEVICES={device.index} in the environment."
            )
        choose_precision(recipe.training.precision, device)
        if launched()[1] > 1:  # of one process the recipe has seen to it
            from captionkit.backends.torch.train import batch_size_per_pass

            batch_size_per_pass(recipe.training, launched()[1])
        if options.sharded and launched()[1] == 1:
            raise ConfigError(
                "sharded=True shares the model out over several processes, and this is one. Start "
                "them with torchrun --nproc-per-node N, or leave sharded away."
            )

    def connect(self) -> None:
        """Connect the run's processes, where there are several. Raises `ProcessError`."""
        from captionkit.backends.torch.processes import connect

        connect()

    def train(self, job: TrainingJob) -> Path:
        """Train as the job says; returns the folder with the finished model."""
        from captionkit.backends.torch.train import train

        return train(job)

    def load(
        self,
        checkpoint: Path,
        device: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
    ) -> Captioner:
        """Load a checkpoint folder for captioning. Raises `CheckpointError`, `ConfigError`."""
        from captionkit.backends.torch.captioner import load_captioner

        return load_captioner(checkpoint, device, dtype, trust_remote_code)
