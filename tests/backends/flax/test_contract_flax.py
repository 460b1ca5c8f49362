"""The contract that every backend keeps, for each family of the Flax backend."""

from __future__ import annotations

import pytest

pytest.importorskip("jax")

from captionkit.testing import BackendContract
from captionkit.testing.models import BLIP, GIT, VIT_GPT2


class TestGit(BackendContract):
    backend, model = "flax", GIT


class TestVisionEncoderDecoder(BackendContract):
    backend, model = "flax", VIT_GPT2


class TestBlip(BackendContract):
    backend, model = "flax", BLIP
    learning_rate = 5e-3
