"""COCO captions (https://cocodataset.org), as they are unpacked or still in their zip files.

data_dir/annotations/captions_train2017.json    or data_dir/annotations_trainval2017.zip
data_dir/train2017/000000000009.jpg             or data_dir/train2017.zip
data_dir/dataset_coco.json                      Karpathy's splits of 2014
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from captionkit.data import arrow
from captionkit.data.coco import id_lists, karpathy, layout
from captionkit.data.coco.annotation_files import captions_table, images_table, without_captions
from captionkit.data.coco.places import find_images
from captionkit.data.dataset import CaptionDataset
from captionkit.data.table_cache import memory_mapped
from captionkit.data.zips import zip_members
from captionkit.errors import ConfigError, DataError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from captionkit.recipe import DataConfig

_PARTS = {"train": "train", "validation": "val", "val": "val"}
_FORM = 1  # of the tables in the cache


def load(config: DataConfig, split: str) -> CaptionDataset | None:
    """COCO captions from `data_dir`: official or Karpathy's splits, unpacked or in zip files.

    `dataset_config` is 2014, 2017 or karpathy. `train_file` and its like may be lists of image
    ids or file names. "test" of an official year has images without captions.
    """
    root = _folder(config)
    version = _version(config, root, split)
    if version is None:
        return None
    if files := id_lists.list_files(config):
        rows = _of_list(files, split, root, version)
        name = f"coco {files.get(split)}"
    elif version == "karpathy":
        rows = _of_karpathy(split, root)
        name = f"coco karpathy {split}"
    elif split == "test":
        rows = _test_images(root, version)
        name = f"coco test{version}"
    else:
        rows = _official(split, root, version)
        name = f"coco {_PARTS.get(split)}{version}"
    if rows is None:
        return None
    images = find_images(rows, root, name, config)
    return CaptionDataset(images, rows.select_columns(["captions", "image_id"]), name)


def is_coco(folder: Path) -> bool:
    """Whether a folder has COCO's caption annotations in it."""
    return bool(layout.years(folder) or layout.karpathy_file(folder))


def _folder(config: DataConfig) -> Path:
    if config.data_dir is None:
        raise DataError(
            "The dataset 'coco' needs data_dir, the folder with COCO's annotations and images. "
            "`captionkit download coco --data-dir FOLDER` fetches them."
        )
    folder = Path(config.data_dir).absolute()
    if not folder.is_dir():
        raise DataError(
            f"data_dir {folder} does not exist. `captionkit download coco --data-dir {folder}` "
            "makes it."
        )
    return folder


def _version(config: DataConfig, root: Path, split: str) -> str | None:
    """2014, 2017 or karpathy; None where there are no test images of any year."""
    known = (*layout.YEARS, "karpathy")
    if config.dataset_config is not None:
        if config.dataset_config not in known:
            raise ConfigError(
                f"dataset_config={config.dataset_config!r} is not a version of COCO: "
                f"{', '.join(known)}."
            )
        return config.dataset_config
    years = layout.years(root)
    with_karpathy = ["karpathy"] if layout.karpathy_file(root) else []
    if split == "test" and not with_karpathy and not id_lists.list_files(config):
        years = layout.test_years(root)
        if not years:
            return None
    if len(years) > 1:
        raise DataError(
            f"{root} has COCO {' and '.join(years + with_karpathy)}: choose one with "
            "dataset_config."
        )
    if not years and not with_karpathy:
        raise DataError(
            f"{root} holds no captions of COCO. Expected annotations/captions_train2017.json (or "
            "2014), annotations_trainval2017.zip, or Karpathy's dataset_coco.json. "
            f"`captionkit download coco --data-dir {root} --parts annotations` fetches them."
        )
    return (years or with_karpathy)[0]


# ---- tables of images and captions: image_id, captions, path, url ------------------------------


def _official(split: str, root: Path, year: str) -> datasets.Dataset | None:
    if split not in _PARTS:
        return None
    part = f"{_PARTS[split]}{year}"
    file = layout.captions_file(root, part)
    if file is not None:
        return _captions(file, part)
    if split != "train":
        return None
    raise DataError(
        f"captions_{part}.json is neither in {root / 'annotations'} nor in an "
        f"annotations_trainval{year}.zip there. `captionkit download coco --data-dir {root} "
        f"--year {year} --parts annotations` fetches it."
    )


def _captions(file: layout.Found, part: str) -> datasets.Dataset:
    def make() -> pa.Table:
        table = captions_table(file, part)
        arrow.check(table, f"coco {part}")
        return table

    return memory_mapped(f"captions_{part}", file.path, (_FORM, file.member, part), make)


def _test_images(root: Path, year: str) -> datasets.Dataset | None:
    part = f"test{year}"
    if file := layout.image_info_file(root, year):
        return memory_mapped(
            f"image_info_{part}", file.path, (_FORM, file.member),
            lambda: images_table(file, part),
        )  # fmt: skip
    folders, zips = layout.image_places(root, part)
    names = [file.name for folder in folders for file in folder.iterdir()]
    for archive in zips:
        members = zip_members(archive).data.column("image")
        names += [member["member"].rpartition("/")[2] for member in members.to_pylist()]
    return _of_names(sorted(set(names)), part)


def _of_names(names: list[str], part: str) -> datasets.Dataset | None:
    """A table of the files that are named like COCO's images, with their ids."""
    import datasets
    import pyarrow as pa

    ids = {m[1]: name for name in names if (m := re.fullmatch(r"(?:COCO_\w+_)?0*(\d+)\.jpg", name))}
    if not ids:
        return None
    table = pa.table(
        {
            "image_id": list(ids),
            "path": [f"{part}/{name}" for name in ids.values()],
            "url": pa.nulls(len(ids), pa.string()),
        }
    )
    return datasets.Dataset(datasets.table.InMemoryTable(without_captions(table)))


def _of_karpathy(split: str, root: Path) -> datasets.Dataset | None:
    file = layout.karpathy_file(root)
    if file is None:
        raise DataError(
            f"There is neither {layout.KARPATHY} nor caption_datasets.zip in {root}. "
            f"`captionkit download coco --data-dir {root} --year 2014 --parts karpathy` fetches it."
        )
    if split not in karpathy.SPLITS:
        return None
    what = (_FORM, file.member)

    def make() -> pa.Table:
        table = karpathy.karpathy_table(file)
        arrow.check(table, f"coco {file}")
        return table

    everything = memory_mapped("karpathy", file.path, what, make).data.table
    return memory_mapped(
        f"karpathy_{split}", file.path, (*what, split),
        lambda: karpathy.of_split(everything, split),
    )  # fmt: skip


def _of_list(
    files: dict[str, Path], split: str, root: Path, version: str
) -> datasets.Dataset | None:
    import pyarrow as pa

    if version == "karpathy":
        raise ConfigError(
            "train_file, validation_file and test_file list the images of splits, and "
            "dataset_config='karpathy' has splits of its own: give one of the two."
        )
    split = {"val": "validation"}.get(split, split)
    if split not in files:
        if split == "train":
            raise DataError("The splits are given as lists of images, but there is no train_file.")
        return None
    parts = {part: layout.captions_file(root, f"{part}{version}") for part in ("train", "val")}
    there = {f"{part}{version}": file for part, file in parts.items() if file is not None}
    if not there:
        raise DataError(f"{root} has no captions of COCO {version}.")
    table = pa.concat_tables([_captions(file, part).data.table for part, file in there.items()])
    where = " and ".join(f"captions_{part}.json" for part in there)
    rows = id_lists.read_lists(files, table, where)[split]
    changed = [(str(file), file.path.stat().st_mtime_ns) for file in there.values()]
    return memory_mapped(
        f"list_{split}", files[split], (_FORM, changed), lambda: table.take(pa.array(rows))
    )
