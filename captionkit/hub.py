"""Uploading a finished model to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.errors import HubError, first_line

if TYPE_CHECKING:
    from captionkit.recipe import Recipe

_NOT_UPLOADED = ["checkpoint-*/**", "damaged-checkpoint-*/**", "captionkit/tensorboard/**", ".*"]


def check_login(recipe: Recipe) -> None:
    """Find out before the training whether its result can be pushed. Raises HubError."""
    from huggingface_hub import whoami

    try:
        whoami()
    except Exception as error:
        raise HubError(
            f"push_to_hub needs a login that works ({first_line(error)}). Run `hf auth login`, or "
            "leave push_to_hub out and upload the folder later."
        ) from None


def push(folder: Path, recipe: Recipe) -> str:
    """Upload a run's folder, without its checkpoints; returns its address. Raises HubError."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        repo = api.create_repo(recipe.hub_model_id or folder.resolve().name, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repo.repo_id,
            ignore_patterns=_NOT_UPLOADED,
            commit_message="Upload of a captionkit run",
        )
    except Exception as error:
        raise HubError(
            f"The model is safe in {folder}, but the upload failed ({first_line(error)}). Push it "
            f"again with: hf upload {recipe.hub_model_id or folder.resolve().name} {folder} ."
        ) from None
    return str(repo)
