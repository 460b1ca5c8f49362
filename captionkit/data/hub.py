"""Any dataset of the Hugging Face Hub that has a column of images and one of captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data.dataset import CaptionDataset
from captionkit.data.shards import SPLIT_WORDS
from captionkit.errors import CaptionkitError, ConfigError, DataError, HubError
from captionkit.settings import nearest

if TYPE_CHECKING:
    from captionkit.data.streaming import StreamedDataset
    from captionkit.recipe import DataConfig

# of Python, and of the Hub's clients: requests, httpx, httpx2
_NETWORK_ERRORS = {"ConnectionError", "ConnectError", "TimeoutError", "Timeout", "TimeoutException"}
_ALSO_CALLED = {"validation": SPLIT_WORDS["validation"], "test": ("test",)}


def load(config: DataConfig, split: str) -> CaptionDataset | StreamedDataset | None:
    """A set of the Hub: `dataset_id`, and where needed `dataset_config` and column names."""
    if not config.dataset_id:
        raise ConfigError(
            "The dataset 'hub' needs dataset_id, for example dataset_id='user/my-captions'."
        )
    splits = load_from_hub(config.dataset_id, config.dataset_config, config.streaming)
    return choose_split(splits, split, config, config.dataset_id, _cache_folders())


def choose_split(
    splits: Any, split: str, config: DataConfig, name: str, folders: Sequence[Path] = ()
) -> Any:
    """One split of a `datasets.DatasetDict`, or None. A lone `datasets.Dataset` is "train".

    folders: where paths of images have to lie, none: anywhere. A `CaptionDataset`, or of an
    iterable one a `StreamedDataset`.
    """
    import datasets

    if not isinstance(splits, dict):
        splits = {"train": splits}
    found = [s for s in _ALSO_CALLED.get(split, (split,)) if s in splits]
    if not found:
        if split in _ALSO_CALLED:
            return None
        raise DataError(
            f"{name} has no split {split!r}{nearest(split, splits)} Splits: {', '.join(splits)}."
        )
    if isinstance(splits[found[0]], CaptionDataset):
        return splits[found[0]]
    name = f"{name} {found[0]}"
    if isinstance(splits[found[0]], datasets.IterableDataset):
        from captionkit.data.streaming import StreamedDataset

        return StreamedDataset.from_hf(splits[found[0]], name, config, None)
    return CaptionDataset.from_hf(
        splits[found[0]], name, config.image_column, config.caption_column, folders,
        config.allow_outside_paths, config.allow_urls,
    )  # fmt: skip


def _cache_folders() -> list[Path]:
    """Where `datasets` unpacks what it fetched: a hub set names no other files of this machine."""
    import datasets
    from huggingface_hub import constants

    return [
        Path(folder).absolute()
        for folder in (
            datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH,
            datasets.config.EXTRACTED_DATASETS_PATH, constants.HF_HUB_CACHE,
        )
    ]  # fmt: skip


def load_from_hub(dataset_id: str, dataset_config: str | None, streaming: bool = False) -> Any:
    """All splits as a `datasets.DatasetDict`. Raises HubError in one line, or ConfigError."""
    import datasets

    try:
        if streaming:
            return datasets.load_dataset(dataset_id, dataset_config, streaming=True)
        return datasets.load_dataset(dataset_id, dataset_config)
    except Exception as error:  # of datasets, huggingface_hub, requests, httpx, pyarrow, ...
        raise _explained(error, dataset_id, dataset_config) from None


def _explained(error: Exception, dataset_id: str, dataset_config: str | None) -> CaptionkitError:
    reason = " ".join(str(error).split())
    kinds = _kinds(error)
    if kinds & {"GatedRepoError"} or "gated dataset" in reason:
        return HubError(
            f"The dataset {dataset_id} is gated: ask for access on its page, then log in with "
            "`hf auth login`."
        )
    if kinds & _NETWORK_ERRORS:
        offline = "OfflineModeIsEnabled" in reason
        why = "HF_HUB_OFFLINE is set, unset it" if offline else "check the connection"
        return HubError(
            f"The dataset {dataset_id} could not be fetched: the Hub cannot be reached ({why}), "
            "and there is no copy of it in the cache."
        )
    if "scripts are no longer supported" in reason:
        return HubError(
            f"The dataset {dataset_id} is a loading script, which `datasets` no longer runs. Look "
            "for a copy in Parquet, or save the images to a folder and give it as data_dir."
        )
    if "BuilderConfig" in reason or "Config name is missing" in reason:
        return ConfigError(f"dataset_config={dataset_config!r} of {dataset_id}: {reason}")
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return HubError(
            f"The Hub has no public dataset {dataset_id}. Check the spelling of the id; if it is "
            "private, log in with `hf auth login`."
        )
    return HubError(
        f"The dataset {dataset_id} could not be loaded: {type(error).__name__}: {reason[:300]}"
    )


def _kinds(error: BaseException | None) -> set[str]:
    """The names of the classes of an error and of all that it came from."""
    names: set[str] = set()
    while error is not None:
        names |= {kind.__name__ for kind in type(error).__mro__}
        error = error.__cause__ or error.__context__
    return names
