"""The contract that every backend keeps, for each family of the torch backend."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from captionkit.testing import BackendContract
from captionkit.testing.models import BLIP, GIT, VIT_GPT2

CPU = {"device": "cpu"}


class TestGit(BackendContract):
    backend, model, settings = "torch", GIT, CPU


class TestVisionEncoderDecoder(BackendContract):
    backend, model, settings = "torch", VIT_GPT2, CPU


class TestBlip(BackendContract):
    backend, model, settings = "torch", BLIP, CPU
    learning_rate = 5e-3
