"""COCO's annotation files (https://cocodataset.org/#format-data) as tables, a row an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.data.arrow import listed
from captionkit.data.coco.json_stream import array_batches
from captionkit.data.fetch import is_url
from captionkit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from captionkit.data.coco.layout import Found


def captions_table(file: Found, part: str) -> pa.Table:
    """What captions_train2017.json and its like say, in the order of their images.

    part: the folder of the images. Columns: image_id, captions (list), path ("train2017/...jpg")
    and url, all of them strings.
    """
    import pyarrow as pa

    images: list[pa.Table] = []
    owners: list[pa.Array] = []
    captions: list[pa.Array] = []
    seen = set()
    with file.reading() as opened:
        for key, items in array_batches(opened, ("images", "annotations")):
            seen.add(key)
            if key == "images":
                images.append(_image_rows(items, part, file))
            else:
                owners.append(strings([id_of(item["image_id"]) for item in items]))
                captions.append(strings([item["caption"].strip() for item in items]))
        if missing := {"images", "annotations"} - seen:
            raise KeyError(*missing)
    table = pa.concat_tables(images).combine_chunks()
    _check_ids(table["image_id"], file)
    lists = _by_image(table["image_id"], pa.concat_arrays(owners), pa.concat_arrays(captions), file)
    return table.append_column("captions", lists)


def images_table(file: Found, part: str) -> pa.Table:
    """What image_info_test2017.json and its like say: the same columns, with no captions."""
    import pyarrow as pa

    with file.reading() as opened:
        batches = array_batches(opened, ("images",))
        images = [_image_rows(items, part, file) for _, items in batches]
        if not images:
            raise KeyError("images")
    table = pa.concat_tables(images).combine_chunks()
    _check_ids(table["image_id"], file)
    return without_captions(table)


def without_captions(table: pa.Table) -> pa.Table:
    """The table with an empty list of captions in each row."""
    import pyarrow as pa

    empty = pa.ListArray.from_arrays(np.zeros(len(table) + 1, np.int32), pa.array([], pa.string()))
    return table.append_column("captions", empty)


def id_of(value: Any) -> str:
    """An id as text. Raises TypeError for what is neither a whole number nor text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"an id should be a number, found {value!r:.40}")
    return str(value)


def plain_name(name: Any) -> str:
    """The name of an image file. Raises DataError where it leads somewhere else."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise DataError(f"the file name {name!r:.80} leads out of the image folder")
    return name


def strings(values: Sequence[str | None]) -> pa.Array:
    """Text in Arrow. Raises DataError for what is not valid Unicode."""
    import pyarrow as pa

    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        raise DataError(f"text that is not valid Unicode: {error.object!a:.200}") from None
    except pa.ArrowException as error:
        raise TypeError(f"expected text ({error})") from None


def _image_rows(items: list[Any], part: str, file: Found) -> pa.Table:
    import pyarrow as pa

    paths = [f"{part}/{plain_name(item['file_name'])}" for item in items]
    urls = [_url(item) for item in items]
    ids = [id_of(item["id"]) for item in items]
    return pa.table({"image_id": strings(ids), "path": strings(paths), "url": strings(urls)})


def _url(item: dict[str, Any]) -> str | None:
    # anything else would be taken for a path
    return next((u for u in (item.get("coco_url"), item.get("flickr_url")) if is_url(u)), None)


def _check_ids(ids: pa.ChunkedArray, file: Found) -> None:
    import pyarrow.compute as pc

    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise DataError(f"{file} lists images with the same id: {listed(repeated)}.")


def _by_image(
    ids: pa.ChunkedArray, owners: pa.Array, captions: pa.Array, file: Found
) -> pa.ListArray:
    """The captions of each image, in their order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pc.index_in(owners, value_set=ids)
    if rows.null_count:
        strangers = owners.filter(pc.is_null(rows)).unique()
        raise DataError(
            f"{file} has captions of images that it does not list: {listed(strangers)}."
        )
    of_caption = rows.to_numpy()
    counts = np.bincount(of_caption, minlength=len(ids))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    order = pa.array(np.argsort(of_caption, kind="stable"))
    return pa.ListArray.from_arrays(offsets, captions.take(order))
