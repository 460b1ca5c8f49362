"""Karpathy and Fei-Fei's splits of COCO 2014 (https://cs.stanford.edu/people/karpathy/).

113,287 images to train on (82,783 of "train" and 30,504 of "restval"), 5,000 each to validate and
to test: what most papers report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.data.coco.annotation_files import id_of, plain_name, strings
from captionkit.data.coco.json_stream import array_batches
from captionkit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from captionkit.data.coco.layout import Found

SPLITS = {"train": ("train", "restval"), "validation": ("val",), "val": ("val",),
          "test": ("test",), "restval": ("restval",)}  # fmt: skip
_EXPECTED = (
    'expected "images", each with filename, filepath, cocoid, split and sentences, as in '
    "dataset_coco.json"
)


def karpathy_table(file: Found) -> pa.Table:
    """All images of dataset_coco.json, in its order.

    Columns: image_id, captions, path ("val2014/COCO_val2014_...jpg"), url, split, and two more
    paths: COCO 2017 has the same images under other names, in one or the other of its folders.
    """
    import pyarrow as pa

    with file.reading(_EXPECTED) as opened:
        tables = [_rows(items) for _, items in array_batches(opened, ("images",))]
        if not tables:
            raise KeyError("images")
        table = pa.concat_tables(tables).combine_chunks()
    if len(table["image_id"].unique()) < len(table):
        raise DataError(f"{file} lists images with the same cocoid.")
    return table


def of_split(table: pa.Table, split: str) -> pa.Table:
    """The images of one split; "train" includes restval."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["split"], value_set=pa.array(SPLITS[split])))


def _rows(items: list[Any]) -> pa.Table:
    import pyarrow as pa

    captions = [[sentence["raw"].strip() for sentence in item["sentences"]] for item in items]
    counts = [len(texts) for texts in captions]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    ids = [id_of(item["cocoid"]) for item in items]
    paths = [f"{plain_name(item['filepath'])}/{plain_name(item['filename'])}" for item in items]
    return pa.table(
        {
            "image_id": strings(ids),
            "captions": pa.ListArray.from_arrays(
                offsets, strings([text for texts in captions for text in texts])
            ),
            "path": strings(paths),
            "path_train2017": strings([f"train2017/{name.zfill(12)}.jpg" for name in ids]),
            "path_val2017": strings([f"val2017/{name.zfill(12)}.jpg" for name in ids]),
            "url": strings([f"http://images.cocodataset.org/{path}" for path in paths]),
            "split": strings([item["split"] for item in items]),
        }
    )
