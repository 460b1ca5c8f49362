"""What all tests share: no network, a cache of their own, small thread pools."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

# an example may take any time on a machine that does other things as well
hypothesis.settings.register_profile("captionkit", deadline=None)
hypothesis.settings.load_profile("captionkit")

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
