"""The Arrow side of a dataset: writing rows, wrapping columns, and checking what is in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.data.images import encode_png, is_url
from captionkit.data.paths import below, outside, spellings
from captionkit.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

NO_URLS = "the URLs in a dataset are fetched only with allow_urls. Set it, or download them first."
_ROWS_PER_BATCH = 64


# ---- writing -----------------------------------------------------------------------------------


def write_rows(
    rows: Iterable[Mapping[str, Any]], sink: Any, name: str, allow_urls: bool = False
) -> None:
    """Write rows of image, captions and image_id as an Arrow stream, the form of `datasets`."""
    import datasets
    import pyarrow as pa

    text = datasets.Value("string")
    schema = datasets.Features(
        {"image": datasets.Image(decode=False), "captions": [text], "image_id": text}
    ).arrow_schema
    with pa.ipc.new_stream(sink, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(_stored(row, name, allow_urls))
            if len(batch) == _ROWS_PER_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
                batch = []
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))


def caption_list(captions: Any, image_id: str, name: str) -> list[str]:
    """One caption or several as a list. Raises DataError for what is not text."""
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, Iterable):
        captions = [captions]
    captions = list(captions)
    for caption in captions:
        if not isinstance(caption, str):
            raise DataError(
                f"{name}: a caption of image_id {image_id} should be text, found {caption!r:.80}."
            )
        _check_unicode(caption, f"a caption of image_id {image_id}", name)
    return captions


def _stored(row: Mapping[str, Any], name: str, allow_urls: bool) -> dict[str, Any]:
    image, image_id = row["image"], str(row["image_id"])
    if is_url(image) and not allow_urls:
        raise DataError(f"{name}: {image} is a URL; {NO_URLS}")
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        _check_unicode(path, "the file name", name)
        stored: dict[str, Any] = {"bytes": None, "path": path}
    elif isinstance(image, (bytes, bytearray)):
        stored = {"bytes": bytes(image), "path": None}
    else:
        stored = {"bytes": encode_png(image), "path": None}
    captions = caption_list(row["captions"], image_id, name)
    return {"image": stored, "captions": captions, "image_id": image_id}


def _check_unicode(text: str, what: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{name}: {what} is not valid Unicode: {text!a:.200}.") from None


# ---- wrapping a datasets.Dataset ---------------------------------------------------------------


def undecoded(images: datasets.Dataset, name: str, allow_urls: bool = False) -> datasets.Dataset:
    """One column of images as they are stored: {bytes, path}, paths, or bytes."""
    import datasets

    ((column, feature),) = images.features.items()
    if isinstance(feature, datasets.Image):
        images = images.cast_column(column, datasets.Image(decode=False))
    elif not _holds_images(feature):
        raise DataError(
            f"{name}: the column {column!r} should hold images, paths or bytes, found {feature}. "
            "Choose another one with image_column."
        )
    urls = [] if allow_urls else [path for path in _paths(images) if is_url(path)]
    if urls:
        raise DataError(f"{name}: the column {column!r} holds URLs ({urls[0]}); {NO_URLS}")
    return images


def check_paths(images: datasets.Dataset, folders: Sequence[Path], name: str) -> None:
    """Raise DataError for a path of an image that lies in none of these folders."""
    known = [spelling for folder in folders for spelling in spellings(folder)]
    for path in _paths(images):
        if not is_url(path) and below(path, known) is None:
            raise outside(path, str(folders[0]), name)


def _holds_images(feature: Any) -> bool:
    if isinstance(feature, dict):  # as in Parquet files that `datasets` did not write
        return set(feature) == {"bytes", "path"}
    kind = getattr(feature, "dtype", "")
    return kind in ("string", "large_string", "binary", "large_binary")


def _paths(rows: datasets.Dataset) -> Iterator[str]:
    """The paths of those images whose bytes are not in the column themselves."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ((column, _),) = rows.features.items()
    images = rows.data.column(column)
    if pa.types.is_struct(images.type):
        without_bytes = pc.is_null(pc.struct_field(images, "bytes"))
        images = pc.struct_field(images, "path").filter(without_bytes)
    if pa.types.is_string(images.type) or pa.types.is_large_string(images.type):
        for chunk in images.drop_null().iterchunks():
            yield from chunk.to_pylist()


def caption_lists(column: pa.ChunkedArray, name: str) -> pa.ListArray:
    """Captions as one Arrow `list<string>`: a string becomes a list of one.

    Raises DataError for a column that holds anything else.
    """
    import pyarrow as pa

    kind, string = column.type, pa.string()
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    values = kind.value_type if is_list else kind
    if not (pa.types.is_string(values) or pa.types.is_large_string(values)):
        raise DataError(
            f"{name}: captions should be text or lists of text, found {kind}. "
            "Choose another column with caption_column."
        )
    if is_list:
        return _one(column.cast(pa.list_(string)), pa.list_(string))
    texts = _one(column.cast(string), string)
    return pa.ListArray.from_arrays(np.arange(len(texts) + 1, dtype=np.int32), texts)


def group(ids: pa.Array, captions: pa.ListArray) -> tuple[np.ndarray, pa.Array, pa.ListArray]:
    """Merge the captions of rows with the same id, in the order of first appearance.

    Returns the first row of each id, the ids, and their captions.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = ids.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    _, first_rows = np.unique(codes, return_index=True)
    of_caption = codes[pc.list_parent_indices(captions).to_numpy(zero_copy_only=False)]
    values = captions.flatten().take(pa.array(np.argsort(of_caption, kind="stable")))
    counts = np.bincount(of_caption, minlength=len(first_rows))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return first_rows, encoded.dictionary, pa.ListArray.from_arrays(offsets, values)


def _one(column: pa.ChunkedArray, kind: Any) -> Any:
    import pyarrow as pa

    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=kind)


# ---- checking ----------------------------------------------------------------------------------


def check(texts: pa.Table, name: str) -> None:
    """Ids are there and unique, and every image has captions, none of them empty."""
    import pyarrow.compute as pc

    ids, captions = texts["image_id"], texts["captions"]
    if ids.null_count:
        raise DataError(f"{name}: {ids.null_count:,} images have no image_id.")
    counts = pc.value_counts(ids.combine_chunks())
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise DataError(f"{name}: image_ids that occur more than once: {listed(repeated)}.")

    lengths = pc.fill_null(pc.list_value_length(captions), 0)
    without = ids.filter(pc.equal(lengths, 0))
    if len(without):
        raise DataError(
            f"{name}: images without a caption: {listed(without)}. Give them one or take them out."
        )
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(pc.list_flatten(captions), ""))
    blank = pc.equal(pc.utf8_length(trimmed), 0)
    if pc.any(blank).as_py():
        rows = np.unique(pc.list_parent_indices(captions).filter(blank).to_numpy())
        raise DataError(
            f"{name}: images with an empty caption: {listed(ids.take(rows))}. "
            "Fill it in or take it out."
        )


def listed(names: Sequence[Any] | pa.Array, shown: int = 5) -> str:
    """A count and the first few names: "12 (a, b, c, d, e, ...)"."""
    more = ", ..." if len(names) > shown else ""
    return f"{len(names):,} ({', '.join(str(name) for name in names[:shown])}{more})"
