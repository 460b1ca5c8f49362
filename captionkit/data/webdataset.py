"""WebDataset: tar shards in which files with the same name, but for its ending, are one sample.

An image (`000.jpg`) and its captions: `000.txt` (one a line), `000.json` (a key such as caption),
or a text of another ending. https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import functools
import itertools
import json
import posixpath
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data import columns
from captionkit.data.arrow import caption_list, listed
from captionkit.data.dataset import CaptionDataset
from captionkit.data.files import IMAGE_ENDINGS, caption_lines
from captionkit.data.shards import shard_files
from captionkit.data.table_cache import memory_mapped
from captionkit.data.tars import TarMember, compression, contents, members
from captionkit.errors import DataError
from captionkit.types import Example

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from captionkit.data.streaming import StreamedDataset
    from captionkit.recipe import DataConfig

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
_VERSION = 1  # of the index in the cache
_TEXTS = ("txt", "text", "caption", "captions")


def load(config: DataConfig, split: str) -> CaptionDataset | StreamedDataset | None:
    """Tar shards of images with a .txt or .json beside each (`train_file`, `data_dir`).

    An index of what lies where in each tar is kept in the cache; images are read from the tars.
    """
    files = shard_files(config, split, "webdataset", ENDINGS)
    if files is None:
        return None
    twice = [name for name, count in Counter(_shard(f) for f in files).items() if count > 1]
    if twice:
        raise DataError(
            f"Shards with the same name: {listed(twice)}. Names of images begin with that of their "
            "shard: rename them."
        )
    name = f"webdataset {files[0] if len(files) == 1 else files[0].parent}"
    if config.streaming:
        from captionkit.data.streaming import StreamedDataset

        shards = [functools.partial(_streamed, file, config) for file in files]
        return StreamedDataset(shards, name, config)
    import datasets

    what = ("webdataset", _VERSION, config.image_column, config.caption_column)
    indices = [
        memory_mapped(_shard(file), file, what, functools.partial(_index, file, config))
        for file in files
    ]
    return CaptionDataset.from_arrow(
        _with_image(datasets.concatenate_datasets(indices), name), name
    )


def _with_image(index: datasets.Dataset, name: str) -> datasets.Dataset:
    import pyarrow.compute as pc

    there = pc.is_valid(index.data.column("image")).to_numpy()
    if not there.all():
        _warn_of_imageless(int((~there).sum()), name)
        index = index.select(there.nonzero()[0])
    return index


def _shard(file: Path) -> str:
    return file.name.split(".tar")[0].removesuffix(".tgz")


# ---- from members to samples -------------------------------------------------------------------


def _index(file: Path, config: DataConfig) -> pa.Table:
    """Where each image lies (null: a sample has none), and its captions."""
    import pyarrow as pa

    samples: dict[str, dict[str, TarMember]] = {}
    for member in members(file):
        _put(samples, member.member, member, file)
    rows = [_row(key, sample, file, config) or (key, None, []) for key, sample in samples.items()]
    text, number = pa.string(), pa.int64()
    place = pa.struct([("archive", text), ("member", text), ("offset", number), ("size", number)])
    schema = pa.schema([("image", place), ("captions", pa.list_(text)), ("image_id", text)])
    images = [None if image is None else vars(image) for _, image, _ in rows]
    return pa.table(
        [
            pa.array(images, place),
            pa.array([captions for *_, captions in rows], pa.list_(text)),
            pa.array([image_id for image_id, *_ in rows], text),
        ],
        schema=schema,
    )


def _streamed(file: Path, config: DataConfig) -> Iterator[Example]:
    """The examples of one shard as they come: of a compressed one with the bytes of the images."""
    files: Iterator[tuple[str, Any]] = (
        contents(file) if compression(file) else ((m.member, m) for m in members(file))
    )
    without = 0
    for _, group in itertools.groupby(files, key=lambda item: _key_and_ending(item[0])[0]):
        sample: dict[str, dict[str, Any]] = {}
        for member, content in group:
            _put(sample, member, content, file)
        for key, parts in sample.items():
            if row := _row(key, parts, file, config):
                yield Example(row[1], tuple(row[2]), row[0])
            else:
                without += 1
    _warn_of_imageless(without, str(file))


def _key_and_ending(member: str) -> tuple[str, str]:
    """What stands before and after the first dot of the name itself."""
    folder, name = posixpath.split(member)
    key, _, ending = name.partition(".")
    return posixpath.join(folder, key), ending.lower()


def _put(samples: dict[str, dict[str, Any]], member: str, content: Any, file: Path) -> None:
    key, ending = _key_and_ending(member)
    sample = samples.setdefault(key, {})
    if ending in sample:
        raise DataError(f"{file} holds {member} twice.")
    sample[ending] = content


def _row(
    key: str, sample: Mapping[str, Any], file: Path, config: DataConfig
) -> tuple[str, Any, list[str]] | None:
    """(image_id, image, captions) of one sample, or None where it has no image."""
    where = f"{key} in {file}"
    ending = _image_ending(sample, where, config)
    if ending is None:
        return None
    image_id = f"{_shard(file)}/{key}"
    captions = caption_list(_captions(sample, where, config), image_id, str(file))
    return image_id, sample[ending], captions


def _image_ending(sample: Mapping[str, Any], where: str, config: DataConfig) -> str | None:
    if config.image_column is not None:
        chosen = config.image_column.lstrip(".").lower()
        return chosen if chosen in sample else None
    images = [e for e in sample if f".{e.rpartition('.')[2]}" in IMAGE_ENDINGS]
    if len(images) > 1:
        raise DataError(
            f"{where}: several images, {', '.join(images)}. Choose an ending with image_column."
        )
    return images[0] if images else None


def _captions(sample: Mapping[str, Any], where: str, config: DataConfig) -> list[str]:
    chosen = (config.caption_column or "").lstrip(".")
    if chosen:
        if chosen != "json" and chosen in sample:
            return _lines(sample[chosen], f"{where}, .{chosen}")
        keys: tuple[str, ...] = (chosen,)
    else:
        keys = columns.CAPTION_COLUMNS
        for ending in _TEXTS:
            if ending in sample:
                return _lines(sample[ending], f"{where}, .{ending}")
    if "json" in sample:
        return _from_json(sample["json"], keys, f"{where}, .json")
    if not chosen and "cls" in sample:
        lines = _lines(sample["cls"], f"{where}, .cls")
        if not any(line.isdigit() for line in lines):
            return lines
        raise DataError(f"{where}: its .cls holds the number of a class, not a caption.")
    there = ", ".join(f".{ending}" for ending in sample)
    raise DataError(
        f"{where}: no caption. Expected a {'.' + chosen if chosen else '.txt or .json'} beside the "
        f"image, found {there}. Say which ending or JSON key it is with caption_column."
    )


def _text(content: Any, where: str) -> str:
    try:
        return (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where} is not UTF-8.") from None
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}.") from None


def _lines(content: Any, where: str) -> list[str]:
    lines = caption_lines(_text(content, where))
    if not lines:
        raise DataError(f"{where} is empty: expected a caption a line.")
    return lines


def _from_json(content: Any, keys: tuple[str, ...], where: str) -> list[str]:
    try:
        values = json.loads(_text(content, where))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid JSON ({error}).") from None
    found = [key for key in keys if isinstance(values, dict) and values.get(key) is not None]
    if not found:
        there = f"the keys {', '.join(values)}" if isinstance(values, dict) else "no object"
        raise DataError(
            f"{where} has {there}, but no caption under {', '.join(keys)}. Say which key it is "
            "with caption_column."
        )
    captions = values[found[0]]
    captions = [captions] if isinstance(captions, str) else captions
    texts = isinstance(captions, list) and all(isinstance(text, str) for text in captions)
    if not texts or not captions or not all(text.strip() for text in captions):
        raise DataError(
            f"{where}: {found[0]!r} should be text or a list of text, not empty, "
            f"found {values[found[0]]!r:.80}."
        )
    return [text.strip() for text in captions]


def _warn_of_imageless(count: int, where: str) -> None:
    if count:
        warnings.warn(f"{where}: {count:,} samples have no image and are not used.", stacklevel=2)
