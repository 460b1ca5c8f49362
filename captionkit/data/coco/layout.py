"""Where COCO's files lie in a folder: unpacked, or in the zip files that they come in."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from captionkit.data.zips import ZIP_ERRORS
from captionkit.errors import DataError

YEARS = ("2014", "2017")
KARPATHY = "dataset_coco.json"
_EXPECTED = (
    'expected "images" with id and file_name, and (but for test images) "annotations" with '
    "image_id and caption"
)


@dataclass(frozen=True)
class Found:
    """An annotation file: a file of its own, or a member of a zip file."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.member} in {self.path}" if self.member else str(self.path)

    @contextlib.contextmanager
    def reading(self, expected: str = _EXPECTED) -> Iterator[IO[bytes]]:
        """The file, open; whatever is wrong in reading and in taking it apart is a DataError."""
        try:
            with contextlib.ExitStack() as stack:
                if self.member is None:
                    yield stack.enter_context(self.path.open("rb"))
                else:
                    archive = stack.enter_context(zipfile.ZipFile(self.path))
                    yield stack.enter_context(archive.open(self.member))
        except DataError as error:
            raise (
                error if str(self.path) in str(error) else DataError(f"{self}: {error}.")
            ) from None
        except (OSError, ValueError, *ZIP_ERRORS) as error:
            raise DataError(f"{self} cannot be read: {error}") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self} is not in COCO's format ({type(error).__name__}: {error}): {expected}."
            ) from None


def captions_file(root: Path, part: str) -> Found | None:
    """captions_train2017.json for the part train2017, and so on."""
    return _find(root, f"captions_{part}.json", f"annotations_trainval{part[-4:]}.zip")


def image_info_file(root: Path, year: str) -> Found | None:
    """image_info_test2017.json: the test images, which have no captions that are public."""
    return _find(root, f"image_info_test{year}.json", f"image_info_test{year}.zip")


def karpathy_file(root: Path) -> Found | None:
    """dataset_coco.json, the splits of Karpathy and Fei-Fei."""
    return _find(root, KARPATHY, "caption_datasets.zip")


def years(root: Path) -> list[str]:
    """The years whose captions are there."""
    return [y for y in YEARS if any(captions_file(root, f"{part}{y}") for part in ("train", "val"))]


def test_years(root: Path) -> list[str]:
    """The years whose test images are there, or a list of them."""
    return [
        year
        for year in YEARS
        if image_info_file(root, year) or any(image_places(root, f"test{year}"))
    ]


def image_places(root: Path, part: str) -> tuple[list[Path], list[Path]]:
    """(folders, zip files) that may hold the images of a part such as train2017."""
    homes = (root, root / "images")
    folders = [home / part for home in homes]
    zips = [home / f"{part}.zip" for home in homes]
    return [f for f in folders if f.is_dir()], [z for z in zips if z.is_file()]


def _find(root: Path, name: str, archive: str) -> Found | None:
    homes = (root / "annotations", root)
    for home in homes:
        if (home / name).is_file():
            return Found(home / name)
    for home in homes:
        if (home / archive).is_file():
            for member in _members(home / archive):
                if member.rpartition("/")[2] == name:
                    return Found(home / archive, member)
    return None


def _members(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except (OSError, *ZIP_ERRORS) as error:
        raise DataError(
            f"{archive} cannot be read ({error}): it was cut off or damaged on its way. Delete it "
            "and fetch it again, for example with `captionkit download coco`."
        ) from None
