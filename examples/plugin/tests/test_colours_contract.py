"""What captionkit asks of every backend, run on this one."""

from __future__ import annotations

from typing import Any, ClassVar

from captionkit.testing import BackendContract


class TestColours(BackendContract):
    backend = "colours"
    model: ClassVar[dict[str, Any]] = {"model_type": "colours"}
    learning_rate = 2e-2
    freeze = ("text.*",)
