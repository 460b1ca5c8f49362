"""The settings that only the Flax backend has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from captionkit.settings import check_types, require


@dataclass(frozen=True)
class FlaxOptions:
    """How the Flax backend runs on this machine."""

    parallel: Literal["pmap"] = "pmap"
    """How the devices share a batch. pmap: each holds the whole model and an equal part of the
    images."""
    devices: int | None = None
    """Use so many devices; default: all that JAX sees."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "devices", self.devices is None or self.devices >= 1, "at least 1")
