"""The settings that only the torch backend has."""

from __future__ import annotations

from dataclasses import dataclass

from captionkit.settings import check_types


@dataclass(frozen=True)
class TorchOptions:
    """How the torch backend runs on this machine."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps, ...; default: the best there is."""
    torch_compile: bool = False
    """Compile the model with torch.compile."""
    sharded: bool = False
    """Under torchrun: share weights and optimizer state out over the processes (FSDP)."""

    def __post_init__(self) -> None:
        check_types(self)
