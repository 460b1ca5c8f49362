"""Fine-tune, evaluate and run image-captioning models, in PyTorch or JAX.

The public names are loaded on first use (PEP 562), so that `import captionkit` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captionkit.api import (
        Evaluation,
        FinetuneResult,
        caption,
        evaluate,
        finetune,
        load,
        score,
    )
    from captionkit.bulk import caption_files
    from captionkit.data import load_dataset
    from captionkit.data.dataset import CaptionDataset
    from captionkit.errors import CaptionkitError
    from captionkit.recipe import DataConfig, Decoding, Recipe, TrainingConfig
    from captionkit.registry import list_backends, list_datasets, list_metrics
    from captionkit.types import Caption, Example

__version__ = "0.1.0"

_HOMES = {
    "finetune": "api", "load": "api", "evaluate": "api", "score": "api", "caption": "api",
    "caption_files": "bulk", "FinetuneResult": "api", "Evaluation": "api",
    "load_dataset": "data", "CaptionDataset": "data.dataset",
    "list_backends": "registry", "list_datasets": "registry", "list_metrics": "registry",
    "Recipe": "recipe", "DataConfig": "recipe", "TrainingConfig": "recipe", "Decoding": "recipe",
    "Example": "types", "Caption": "types",
    "CaptionkitError": "errors",
}  # fmt: skip

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'captionkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"captionkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
