"""What all tests share: no network, a cache of their own, small thread pools, no deadline."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

# how long an example takes depends on what else the machine does
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

# the tests that both backends import
pytest.register_assert_rewrite(
    "bad_image_policy", "bulk_policy", "not_finite_policy", "training_policy"
)

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    os.environ["CAPTIONKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the project: skipped without it, except in `nox -s acceptance`."""
    if not SHARED.is_dir():
        message = f"the real data are not at {SHARED}"
        if os.environ.get("CAPTIONKIT_REQUIRE_DATA"):
            pytest.fail(message)
        pytest.skip(message)
    return SHARED
