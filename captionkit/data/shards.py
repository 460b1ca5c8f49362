"""The files that a set in shards consists of, split by split."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.data.paths import data_folder
from captionkit.errors import DataError

if TYPE_CHECKING:
    from captionkit.recipe import DataConfig

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_MOST = 1_000_000  # shards that a pattern may stand for


def shard_files(
    config: DataConfig, split: str, source: str, endings: tuple[str, ...]
) -> list[Path] | None:
    """The files of one split in their order, absolute; None where there are none.

    From `train_file`, `validation_file` and `test_file`: a file, a folder, or a pattern with
    {000..099} or *. Else from `data_dir`: subfolders, or file names that begin with the split.
    """
    given = {
        "train": config.train_file, "validation": config.validation_file, "test": config.test_file,
    }  # fmt: skip
    if any(given.values()):
        pattern = given.get(split)
        if pattern is None and split == "train":
            raise DataError(f"The dataset {source!r} needs train_file (or data_dir).")
        return _matching(pattern, f"{split}_file", endings) if pattern else None
    if config.data_dir is None:
        raise DataError(
            f"The dataset {source!r} needs data_dir, the folder of its {endings[0]} files, or "
            f"train_file, such as shards/train-{{000..099}}{endings[0]}."
        )
    folder = data_folder(config.data_dir, source)
    files = _by_split(folder, endings)
    if not files:
        raise DataError(f"There are no {' or '.join(endings)} files in {folder}.")
    if split == "train" and split not in files:
        raise DataError(f"{folder} has files for {', '.join(files)}, but none for train.")
    return files.get(split)


def holds_shards(folder: Path, endings: tuple[str, ...]) -> bool:
    """Whether a folder, or a split's folder in it, has files with these endings."""
    return folder.is_dir() and bool(_by_split(folder, endings))


def _by_split(folder: Path, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for place in (folder, folder / "data"):
        for path in _in_folder(place, endings):
            word = re.split(r"[^a-zA-Z]", path.name)[0].lower()
            files.setdefault(_split_of(word) or "train", []).append(path)
    for split, words in SPLIT_WORDS.items():
        for word in words:
            files.setdefault(split, []).extend(_in_folder(folder / word, endings))
    return {split: paths for split, paths in files.items() if paths}


def _split_of(word: str) -> str | None:
    return next((split for split, words in SPLIT_WORDS.items() if word in words), None)


def _in_folder(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(endings) and not path.name.startswith(".") and path.is_file()
    )


def _matching(pattern: str, setting: str, endings: tuple[str, ...]) -> list[Path]:
    path = Path(pattern).absolute()
    if path.is_dir():
        found = _in_folder(path, endings)
    elif path.is_file():
        found = [path]
    else:
        found = []
        for name in expand_braces(pattern, setting):
            matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
            missing = [match for match in matches if not Path(match).is_file()]
            if missing or not matches:
                raise DataError(
                    f"{setting}={pattern!r}: there is no file {(missing or [name])[0]}."
                )
            found += [Path(match).absolute() for match in matches]
    wrong = [path for path in found if not path.name.endswith(endings)]
    if wrong or not found:
        what = f"{wrong[0]} is none" if wrong else "there are none"
        raise DataError(f"{setting}={pattern!r} should be {' or '.join(endings)} files: {what}.")
    return found


def expand_braces(pattern: str, setting: str = "the pattern") -> list[str]:
    """`{000..099}` and `{a,b}` written out, as shells do it. Raises DataError for too many."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    if match[3] is not None:
        choices = match[3].split(",")
    else:
        first, last = int(match[1]), int(match[2])
        if abs(last - first) >= _MOST:
            raise DataError(f"{setting}={pattern!r} stands for more than {_MOST:,} files.")
        # as wide as it is written, if it begins with a zero
        width = len(match[1]) if match[1].startswith("0") or match[2].startswith("0") else 0
        step = 1 if last >= first else -1
        choices = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    rests = expand_braces(pattern[match.end() :], setting)
    if len(choices) * len(rests) > _MOST:
        raise DataError(f"{setting}={pattern!r} stands for more than {_MOST:,} files.")
    return [pattern[: match.start()] + choice + rest for choice in choices for rest in rests]
