"""Finding the image and caption columns of a table, and bringing captions into one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.errors import DataError
from captionkit.settings import nearest

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("image", "image_path", "file_name", "path", "filepath", "filename", "url")
CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences", "caption_text")


def image_column(available: Sequence[str], chosen: str | None, where: str) -> str:
    """The column with the images: the chosen one, or the first conventional one."""
    return _column(available, chosen, IMAGE_COLUMNS, "image", where)


def caption_column(available: Sequence[str], chosen: str | None, where: str) -> str:
    """The column with the captions: the chosen one, or the first conventional one."""
    return _column(available, chosen, CAPTION_COLUMNS, "caption", where)


def _column(
    available: Sequence[str], chosen: str | None, usual: Sequence[str], kind: str, where: str
) -> str:
    there = ", ".join(str(name) for name in available) or "none"
    if chosen is not None:
        if chosen in available:
            return chosen
        raise DataError(
            f"{where} has no column {chosen!r}{nearest(chosen, available)} Columns: {there}."
        )
    for name in usual:
        if name in available:
            return name
    raise DataError(
        f"{where} has no {kind} column under a usual name ({', '.join(usual)}). "
        f"Columns: {there}. Say which one it is with {kind}_column."
    )


def as_lists(column: pa.ChunkedArray, where: str) -> pa.ListArray:
    """Captions as one Arrow `list<string>`: a string becomes a list of one.

    Raises DataError for a column that holds anything else.
    """
    import pyarrow as pa

    kind = column.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = _one(column.cast(pa.string()), pa.string())
            return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32), values)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            if pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type):
                return _one(column.cast(pa.list_(pa.string())), pa.list_(pa.string()))
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: the captions cannot be read: {error}") from None
    raise DataError(
        f"{where}: captions should be text or lists of text, found {kind}. "
        "Choose another column with caption_column."
    )


def group(ids: Any, captions: pa.ListArray) -> tuple[np.ndarray, pa.Array, pa.ListArray]:
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

    chunks = column.chunks
    return pa.concat_arrays(chunks) if chunks else pa.array([], type=kind)
