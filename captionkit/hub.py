"""Uploading a finished model to the Hugging Face Hub, with a card that shows what it can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.errors import HubError
from captionkit.evaluation import read_predictions

if TYPE_CHECKING:
    from captionkit.recipe import Recipe

_NOT_UPLOADED = ["checkpoint-*/**", "captionkit/tensorboard/**", ".*"]
_NAMES = {"wer": "WER", "cer": "CER", "cider": "CIDEr", "rougeLsum": "ROUGE-Lsum"}


def check_login(recipe: Recipe) -> None:
    """Find out before the training whether its result can be pushed. Raises HubError."""
    from huggingface_hub import whoami

    try:
        whoami()
    except Exception as error:
        raise HubError(
            f"push_to_hub needs a login that works ({_one_line(error)}). Run `hf auth login`, or "
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
            f"The model is safe in {folder}, but the upload failed ({_one_line(error)}). Push it "
            f"again with: hf upload {recipe.hub_model_id or folder.resolve().name} {folder} ."
        ) from None
    return str(repo)


def model_card(folder: Path, recipe: Recipe) -> str:
    """The README.md of a run's folder: what it is, how to use it, metrics and sample captions."""
    metrics = json.loads((folder / "captionkit/metrics.json").read_text(encoding="utf-8"))
    samples = [row for row in read_predictions(folder / "captionkit")][:8]
    name = recipe.hub_model_id or folder.resolve().name
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: image-to-text",
        "tags: [image-captioning, captionkit]",
        *([f"base_model: {recipe.model}"] if recipe.model and recipe.model.count("/") == 1 else []),
        "---",
        "",
        f"# {folder.resolve().name}",
        "",
        f"An image-captioning model, trained from `{recipe.model or recipe.encoder}` on "
        f"{recipe.data.dataset or 'local files'} with captionkit.",
        "",
        "```python",
        "import captionkit",
        "",
        f'captioner = captionkit.load("{name}")',
        'print(captioner.caption("photo.jpg")[0].text)',
        "```",
        "",
        "## Evaluation",
        "",
        f"On {len(read_predictions(folder / 'captionkit'))} held-out images, by generated captions "
        f"({recipe.decoding.num_beams} beams, up to {recipe.decoding.max_new_tokens} tokens).",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {_NAMES.get(key, key)} | {value:.4g} |" for key, value in metrics.items()),
        "",
        "## Sample captions",
        "",
        "| image | generated | a reference |",
        "| --- | --- | --- |",
        *(
            f"| {_cell(row.image_id)} | {_cell(row.prediction)} | "
            f"{_cell(row.references[0] if row.references else '')} |"
            for row in samples
        ),
        "",
        "![images with captions](captionkit/samples.png)",
        "",
        "The recipe of the run is in `captionkit/recipe.yaml`, its report in "
        "`captionkit/report.html`.",
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    # captions are data: nothing in them may become markup or leave the table's cell
    for special in "\\`*_[]<>|!#":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
