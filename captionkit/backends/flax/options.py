"""The settings that only the Flax backend has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from captionkit.errors import ConfigError
from captionkit.settings import check_types, require


@dataclass(frozen=True)
class FlaxOptions:
    """How the Flax backend runs on this machine."""

    parallel: Literal["pmap", "mesh"] = "pmap"
    """How the devices share a batch. pmap: each holds the whole model and an equal part of the
    images. mesh: the same by jax.jit over a mesh, which can share out the model too (fsdp)."""
    fsdp: int = 1
    """With mesh: share the weights and the optimizer's state out over so many devices; 1: each
    holds all."""
    devices: int | None = None
    """Use so many devices; default: all that JAX sees."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "devices", self.devices is None or self.devices >= 1, "at least 1")
        require(self, "fsdp", self.fsdp >= 1, "at least 1")
        if self.fsdp > 1 and self.parallel != "mesh":
            raise ConfigError(f"fsdp={self.fsdp} needs parallel='mesh'; pmap keeps all everywhere.")
