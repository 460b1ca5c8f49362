"""What every backend promises, as tests that a backend runs on itself.

    from captionkit.testing import BackendContract

    class TestMine(BackendContract):
        backend = "mine"
        model = {"model_type": "...", ...}  # a tiny config.json

pytest collects the inherited tests. pytest is needed, and the backend's framework.
"""

from captionkit.testing.contract import BackendContract
from captionkit.testing.pictures import two_colour_pictures

__all__ = ["BackendContract", "two_colour_pictures"]
