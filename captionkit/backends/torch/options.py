"""The settings that only the torch backend has."""

from __future__ import annotations

from dataclasses import dataclass

from captionkit.settings import check_types, require


@dataclass(frozen=True)
class TorchOptions:
    """How the torch backend runs on this machine."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; default: the best there is."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    torch_compile: bool = False
    """Compile the model with torch.compile."""
    workers: int | None = None
    """Processes that decode images; 0: in the training process. Default: 0 on a CPU, else the
    cores, at most 8."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "workers", self.workers is None or self.workers >= 0, "0 or more")
