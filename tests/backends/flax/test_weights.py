"""Weights to and from files: every tensor accounted for, nothing changed on the way."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest
from conftest_flax import random_tensors, ved_config, ved_shapes, write_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from captionkit.backends.flax.models import family_of
from captionkit.errors import CheckpointError
from captionkit.tensors import TensorFiles

FAMILY = family_of("vision-encoder-decoder")


def load(folder):
    return FAMILY.load_params(folder, FAMILY.config_of(folder))


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.asarray(x).tobytes() == y.tobytes(), a, b))
