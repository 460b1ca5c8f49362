"""The files that COCO is distributed in (https://cocodataset.org/#download).

The servers publish no checksums. Sizes and SHA-256 of COCO's own files are those that TensorFlow
Datasets recorded (tensorflow_datasets/url_checksums/coco.txt); of Karpathy's none is known to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captionkit.data.coco import layout
from captionkit.errors import ConfigError

PARTS = ("train", "val", "test", "annotations", "karpathy")
_COCO = "http://images.cocodataset.org"  # it offers no https under this name
_KARPATHY = "https://cs.stanford.edu"
_IMAGES = {
    "train2014": 82_783, "val2014": 40_504, "test2014": 40_775,
    "train2017": 118_287, "val2017": 5_000, "test2017": 40_670,
}  # fmt: skip


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: bytes and SHA-256 as published, where they are known."""

    server: str
    path: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's name, there and here."""
        return self.path.rpartition("/")[2]


_FILES = {
    file.name: file
    for file in (
        RemoteFile(
            _COCO, "/zips/train2014.zip", 13_510_573_713,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        ),
        RemoteFile(
            _COCO, "/zips/val2014.zip", 6_645_013_297,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        ),
        RemoteFile(
            _COCO, "/zips/test2014.zip", 6_660_437_059,
            "ead40c62230cb2cf70ff4c8b4c70abdc260a7556e77b3282621d06d8e2e35bdf",
        ),
        RemoteFile(
            _COCO, "/zips/train2017.zip", 19_336_861_798,
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        ),
        RemoteFile(
            _COCO, "/zips/val2017.zip", 815_585_330,
            "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        ),
        RemoteFile(
            _COCO, "/zips/test2017.zip", 6_646_970_404,
            "c7908c3c9f94ba2f3340ebbeec58c25db6be8774f18d68c2f15d0e369d95baba",
        ),
        RemoteFile(
            _COCO, "/annotations/annotations_trainval2014.zip", 252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        ),
        RemoteFile(
            _COCO, "/annotations/annotations_trainval2017.zip", 252_907_541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ),
        RemoteFile(
            _COCO, "/annotations/image_info_test2014.zip", 763_464,
            "7cecc66f6b09c1671c1896a1bcc1f35eb09b7fcf00a5c18420a5f0f5983dc8c9",
        ),
        RemoteFile(
            _COCO, "/annotations/image_info_test2017.zip", 1_144_034,
            "e52f412dd7195ac8f98d782b44c6dd30ea10241e9f42521f67610fbe055a74f8",
        ),
        RemoteFile(_KARPATHY, "/people/karpathy/deepimagesent/caption_datasets.zip"),
    )
}  # fmt: skip


def files_of(parts: Sequence[str], year: str) -> list[RemoteFile]:
    """The files of some parts, the small ones first. Raises ConfigError for an unknown part."""
    if unknown := [part for part in parts if part not in PARTS]:
        raise ConfigError(
            f"--parts {','.join(unknown)} is not possible: choose from {', '.join(PARTS)}."
        )
    if year not in layout.YEARS:
        raise ConfigError(f"year={year!r} is not possible: {' or '.join(layout.YEARS)}.")
    names = {
        "annotations": [f"annotations_trainval{year}.zip"],
        "karpathy": ["caption_datasets.zip"],
        "test": [f"image_info_test{year}.zip", f"test{year}.zip"],
        "val": [f"val{year}.zip"],
        "train": [f"train{year}.zip"],
    }
    return [_FILES[name] for part in names if part in parts for name in names[part]]


def is_unpacked(name: str, root: Path) -> bool:
    """Whether what a zip file holds lies in a folder already, as a whole."""
    stem = name.removesuffix(".zip")
    if stem in _IMAGES:
        return any(
            sum(file.suffix == ".jpg" for file in folder.iterdir()) >= _IMAGES[stem]
            for folder in layout.image_places(root, stem)[0]
        )
    if name == "caption_datasets.zip":
        wanted = [layout.KARPATHY]
    elif name.startswith("image_info"):
        wanted = [f"{stem}.json"]
    else:
        wanted = [f"captions_{part}{stem[-4:]}.json" for part in ("train", "val")]
    homes = (root / "annotations", root)
    return all(any((home / file).is_file() for home in homes) for file in wanted)
