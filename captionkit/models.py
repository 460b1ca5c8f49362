"""From what a user names as the model to a folder that a backend can load.

A hub id is downloaded, a config to train from scratch gets a tokenizer and an image processor.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.errors import CheckpointError, ConfigError, HubError, first_line
from captionkit.recipe import Recipe
from captionkit.settings import nearest

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset

_SHIPPED = Path(__file__).parent / "recipes" / "models"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_OTHER_WEIGHTS = (".h5", ".ckpt", ".onnx", ".pt", ".pth", ".gguf")
_DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors", "*.bin", "*.msgpack"]


def resolve_model(model: str, trust_remote_code: bool = False) -> Path:
    """The local folder (or config file) that a model name stands for; hub ids are downloaded.

    Raises `CheckpointError` for a folder without a config, `HubError` for a hub id that cannot
    be had.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CheckpointError(
                f"{path} is not a checkpoint: it has no config.json. It holds: {_listing(path)}."
            )
        return path
    if path.is_file():
        if path.suffix != ".json":
            raise CheckpointError(
                f"{path} is not a model config (a .json file) nor a checkpoint folder."
            )
        return path
    if model in shipped_models():
        return _SHIPPED / f"{model}.json"
    if model.count("/") > 1 or model.startswith((".", "/", "~")) or os.sep in model[:1]:
        raise CheckpointError(f"There is no folder {model}.")
    return _download(model, trust_remote_code)


def shipped_models() -> list[str]:
    """The names of the configs that come with captionkit, to train from scratch."""
    return sorted(path.stem for path in _SHIPPED.glob("*.json"))


def model_type(path: Path) -> str:
    """`model_type` of a checkpoint folder or config file. Raises CheckpointError."""
    kind = read_config(path).get("model_type")
    if not isinstance(kind, str):
        file = path / "config.json" if path.is_dir() else path
        raise CheckpointError(f"{file} does not name a model_type, so it is no model config.")
    return kind


def read_config(path: Path) -> dict[str, Any]:
    """The values in the config.json of a checkpoint folder, or in a config file.

    Raises CheckpointError.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds {type(config).__name__}, where an object is expected.")
    return config


def has_weights(folder: Path) -> bool:
    """Whether a checkpoint folder holds weights, in any of the forms that are read."""
    patterns = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.msgpack")
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def writer_of(folder: Path) -> str | None:
    """The backend that wrote a checkpoint; None if captionkit did not."""
    recipe = recipe_of(folder)
    return recipe.backend if recipe else None


def recipe_of(folder: Path | None) -> Recipe | None:
    """The recipe that a checkpoint was trained with; None if captionkit did not train it."""
    file = folder / "captionkit" / "recipe.yaml" if folder else None
    try:
        return Recipe.from_file(file) if file and file.is_file() else None
    except ConfigError:
        return None  # of another version: it is as good as a stranger's


def prepare_model(
    source: Path, folder: Path, train: CaptionDataset, trust_remote_code: bool
) -> Path:
    """A folder with config, tokenizer and image processor, ready to be trained.

    source: a checkpoint folder, or a config. What a config lacks is made and written to `folder`:
    a word-level tokenizer from the training captions, and an image processor of the config's
    image size. Raises CheckpointError for a folder that lacks what it should have.
    """
    from captionkit.data.captions import build_word_tokenizer, save_tokenizer
    from captionkit.data.preprocess import Preprocessor

    if source.is_dir() and has_weights(source):
        load_tokenizer(source, trust_remote_code)
        Preprocessor.from_checkpoint(source)
        return source
    if source.is_dir() and (
        others := [path.name for path in sorted(source.glob("*")) if path.suffix in _OTHER_WEIGHTS]
    ):
        raise CheckpointError(
            f"{source} has weights in a form that is not read: {', '.join(others)}. Convert them "
            "to model.safetensors; or give config.json alone to train from scratch."
        )
    folder.mkdir(parents=True, exist_ok=True)
    home = source if source.is_dir() else source.parent
    config = source / "config.json" if source.is_dir() else source
    shutil.copyfile(config, folder / "config.json")
    own_files = source.is_dir()  # beside a lone config file other things may lie
    if own_files and any((home / name).is_file() for name in _TOKENIZER_FILES):
        save_tokenizer(load_tokenizer(home, trust_remote_code), folder)
    else:
        save_tokenizer(build_word_tokenizer(train.all_captions()), folder)
    if own_files and any((home / name).is_file() for name in _PROCESSOR_FILES):
        Preprocessor.from_checkpoint(home).save(folder)
    else:
        height, width = _image_size(read_config(config))
        dataclasses.replace(Preprocessor.square(height), size=(height, width)).save(folder)
    return folder


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint folder, with a padding token. Raises CheckpointError."""
    from transformers import AutoTokenizer

    # without its files transformers would make an empty one from the model type
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(
            f"{folder} has no tokenizer that can be loaded (no "
            f"{', '.join(_TOKENIZER_FILES)}). Save it there with tokenizer.save_pretrained(...)."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
        tokenizer("a")  # what is wrong with its settings comes out only now
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # its readers raise anything; a panic in Rust is no Exception
        raise CheckpointError(
            f"{folder} has no tokenizer that can be loaded ({first_line(error)}). Save it there "
            "with tokenizer.save_pretrained(...)."
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.sep_token
    return tokenizer


def _image_size(config: dict[str, Any]) -> tuple[int, int]:
    """(height, width) in pixels, which a config gives as one number or two."""
    for part in (config, config.get("vision_config"), config.get("encoder")):
        size = part.get("image_size") if isinstance(part, dict) else None
        if isinstance(size, int):
            return size, size
        if isinstance(size, list) and len(size) == 2 and all(isinstance(s, int) for s in size):
            return size[0], size[1]
    return 224, 224


def _download(model: str, trust_remote_code: bool) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    hint = f"Shipped configs: {', '.join(shipped_models())}."
    try:
        patterns = [*_DOWNLOADED, "*.py"] if trust_remote_code else _DOWNLOADED
        folder = Path(snapshot_download(model, allow_patterns=patterns))
    except HFValidationError:
        raise CheckpointError(
            f"{model!r} is neither a folder, a shipped config nor a hub id"
            f"{nearest(model, shipped_models())} {hint}"
        ) from None
    except GatedRepoError:
        raise HubError(
            f"{model} is gated: accept its terms on its hub page, then run `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise HubError(
            f"There is no model {model!r} on the hub (or it is private: run `hf auth login`), and "
            f"no folder of that name here{nearest(model, shipped_models())} {hint}"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else first_line(error)
        raise HubError(
            f"Cannot download {model!r}: the hub cannot be reached ({offline}). It is not in the "
            f"local cache, and there is no folder of that name here"
            f"{nearest(model, shipped_models())} Give a local folder, or go online. {hint}"
        ) from None
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{model} on the hub is not a transformers model: no config.json.")
    if not has_weights(folder):
        raise CheckpointError(
            f"{model} on the hub has no weights that can be read (model.safetensors, its "
            "shards, pytorch_model.bin, or flax_model.msgpack)."
        )
    return folder


def _listing(path: Path) -> str:
    names = sorted(p.name for p in path.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
