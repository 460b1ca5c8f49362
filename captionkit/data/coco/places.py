"""Where the images of a table lie: in folders, in zip files, or only at their addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.data.arrow import listed
from captionkit.data.coco.layout import image_places
from captionkit.data.image_column import ImageColumn, ImageParts
from captionkit.data.paths import is_unicode
from captionkit.data.zips import zip_members
from captionkit.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from captionkit.recipe import DataConfig


def find_images(
    rows: datasets.Dataset, root: Path, name: str, config: DataConfig
) -> ImageColumn | ImageParts:
    """The images of a table's rows, each from the first place that has it.

    rows: with the columns path ("train2017/...jpg"), url, and perhaps path_..., where an image
    also may be. Places: folders, then zip files, then (if allowed) URLs. Raises DataError for
    images that are in none; under `on_bad_image="skip"` only if that is all of them.
    """
    columns: list[ImageColumn] = []
    if not len(rows):
        return ImageColumn(rows.select_columns(["path"]))
    places = np.full((len(rows), 2), -1, dtype=np.int64)  # (which column, row of it)
    for label in [label for label in rows.column_names if label.startswith("path")]:
        for column, found in _stores(rows, label, root):
            new = (places[:, 0] < 0) & (found >= 0)
            if new.any():
                places[new, 0], places[new, 1] = len(columns), found[new]
                columns.append(column)
            if (places[:, 0] >= 0).all():
                return _joined(columns, places)
    missing = np.flatnonzero(places[:, 0] < 0)
    if config.allow_urls:
        without = missing[_is_null(rows.data.column("url"))[missing]]
        if len(without):
            raise _not_there(rows, without, root, name, config)
        places[missing, 0], places[missing, 1] = len(columns), missing
        columns.append(ImageColumn(rows.select_columns(["url"])))
        return _joined(columns, places)
    if config.on_bad_image == "stop" or len(missing) == len(rows):
        raise _not_there(rows, missing, root, name, config)
    places[missing, 0], places[missing, 1] = len(columns), missing
    columns.append(ImageColumn(rows.select_columns(["path"]), str(root)))
    return _joined(columns, places)


def _is_null(values: pa.ChunkedArray) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.is_null(values).to_numpy()


def _joined(columns: Sequence[ImageColumn], places: np.ndarray) -> ImageColumn | ImageParts:
    if len(columns) > 1:
        return ImageParts(columns, places)
    if len(columns[0]) == len(places) and (places[:, 1] == np.arange(len(places))).all():
        return columns[0]
    return columns[0].select(places[:, 1])


# ---- looking -----------------------------------------------------------------------------------


def _stores(
    rows: datasets.Dataset, label: str, root: Path
) -> Iterator[tuple[ImageColumn, np.ndarray]]:
    """A column of images for each place, and for each row the row of it, or -1: `(rows,)`."""
    paths = rows.data.column(label).combine_chunks()
    parts = sorted({path.partition("/")[0] for path in paths.to_pylist()})
    homes = {folder.parent for part in parts for folder in image_places(root, part)[0]}
    for home in sorted(homes, key=lambda home: home != root):
        yield ImageColumn(rows.select_columns([label]), str(home)), _in_folders(paths, home, parts)
    for part in parts:
        for archive in image_places(root, part)[1]:
            members = zip_members(archive)
            yield ImageColumn(members), _in_zip(paths, members, part)


def _in_folders(paths: pa.Array, home: Path, parts: Sequence[str]) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    # one listing a folder: asking for each file takes far longer, on a network above all
    there = [f"{part}/{name}" for part in parts for name in _listing(home / part)]
    found = pc.is_in(paths, value_set=pa.array(there, pa.string())).to_numpy(False)
    if there:
        found = found.copy()
        for i in np.flatnonzero(~found)[:_ASKED_FOR].tolist():
            # the file system may ignore case, or spell accents otherwise than the annotations
            found[i] = (home / paths[i].as_py()).exists()
    return np.where(found, np.arange(len(paths)), -1)


_ASKED_FOR = 1000


def _listing(folder: Path) -> list[str]:
    try:
        # names that are not Unicode are none of COCO's, and Arrow would refuse them
        return [name for name in os.listdir(folder) if name.isascii() or is_unicode(name)]
    except OSError:
        return []


def _in_zip(paths: pa.Array, members: datasets.Dataset, part: str) -> np.ndarray:
    """By path; or else by name, wherever in the zip of this part it lies."""
    import pyarrow as pa
    import pyarrow.compute as pc

    inside = pc.struct_field(members.data.column("image"), "member").combine_chunks()
    found = pc.fill_null(pc.index_in(paths, value_set=inside), -1).to_numpy().astype(np.int64)
    left = np.flatnonzero((found < 0) & pc.starts_with(paths, f"{part}/").to_numpy(False))
    if len(left):
        names = [path.rpartition("/")[2] for path in inside.to_pylist()]
        wanted = [path.rpartition("/")[2] for path in paths.take(pa.array(left)).to_pylist()]
        place = {name: i for i, name in reversed(list(enumerate(names)))}
        found[left] = [place.get(name, -1) for name in wanted]
    return found


# ---- what is said of those that are nowhere ----------------------------------------------------


def _not_there(
    rows: datasets.Dataset, missing: Any, root: Path, name: str, config: DataConfig
) -> DataError:
    import pyarrow as pa

    paths = rows.data.column("path").take(pa.array(missing)).to_pylist()
    parts = sorted({path.partition("/")[0] for path in paths})
    tried = ", ".join(f"{part} and {part}.zip" for part in parts)
    wanted = ",".join(sorted({part[:-4] for part in parts}))
    text = f"{name}: of {len(rows):,} images these are not in {root} ({tried}): {listed(paths)}. "
    if config.allow_urls:
        return DataError(f"{text}They have no URL either.")
    text += (
        f"Fetch them with `captionkit download coco --data-dir {root} --year {parts[0][-4:]} "
        f"--parts {wanted}`"
    )
    if rows.data.column("url").null_count < len(rows):
        text += ", or let each be read from the web with allow_urls"
    if len(missing) < len(rows):
        text += "; on_bad_image=skip goes on without them"
    return DataError(f"{text}.")
