import shutil
import zipfile
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from captionkit.data.coco.places import find_images
from captionkit.errors import DataError
from captionkit.recipe import DataConfig

NAMES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")


def table(paths, urls=None, **others) -> datasets.Dataset:
    columns = {"path": paths, "url": pa.array(urls or [None] * len(paths), pa.string()), **others}
    return datasets.Dataset(datasets.table.InMemoryTable(pa.table(columns)))


def found(rows, root: Path, **settings) -> list[str]:
    """Where each image is read from, relative to the root."""
    images = find_images(rows, root, "coco train2017", DataConfig(**settings))
    shown = [str(images[i]) for i in range(len(images))]
    chosen = images.select([len(images) - 1, 0])
    assert [str(chosen[0]), str(chosen[1])] == [shown[-1], shown[0]]
    return [text.replace(f"{root}/", "") for text in shown]


def folder(root: Path, place: str, names) -> None:
    (root / place).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / place / name).write_text(f"{place}/{name}")


def archive(root: Path, place: str, names) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / place, "w") as file:
        for name in names:
            file.writestr(name, name)


PATHS = [f"train2017/{name}" for name in NAMES]


def test_each_image_comes_from_the_first_place_that_has_it(tmp_path):
    folder(tmp_path, "train2017", ["b.jpg", "other.jpg"])
    folder(tmp_path, "images/train2017", ["b.jpg", "d.jpg"])
    archive(tmp_path, "train2017.zip", ["train2017/a.jpg", "train2017/b.jpg"])
    urls = ["http://x/a", None, "http://x/c", None]
    assert found(table(PATHS, urls), tmp_path, allow_urls=True) == [
        "train2017/a.jpg in train2017.zip",
        "train2017/b.jpg",
        "http://x/c",
        "images/train2017/d.jpg",
    ]


@pytest.mark.parametrize("inside", ["train2017/", "", "./train2017/", "coco/images/train2017/"])
def test_images_in_a_zip_may_lie_in_any_folder(tmp_path, inside):
    names = [f"__MACOSX/{inside}._{NAMES[0]}", *(inside + name for name in reversed(NAMES))]
    archive(tmp_path, "images/train2017.zip", names)
    assert found(table(PATHS), tmp_path) == [
        f"{inside}{name} in images/train2017.zip" for name in NAMES
    ]


def test_an_empty_folder_beside_a_zip_is_passed_over(tmp_path):
    (tmp_path / "train2017").mkdir()
    archive(tmp_path, "train2017.zip", PATHS)
    assert found(table(PATHS), tmp_path)[0] == "train2017/a.jpg in train2017.zip"


def test_several_parts_and_other_names(tmp_path):
    folder(tmp_path, "train2014", ["a.jpg"])
    folder(tmp_path, "val2017", ["02.jpg"])
    archive(tmp_path, "train2017.zip", ["train2017/03.jpg"])
    rows = table(
        ["train2014/a.jpg", "val2014/b.jpg", "train2014/c.jpg"],
        path_train2017=["train2017/01.jpg", "train2017/02.jpg", "train2017/03.jpg"],
        path_val2017=["val2017/01.jpg", "val2017/02.jpg", "val2017/03.jpg"],
    )
    assert found(rows, tmp_path) == [
        "train2014/a.jpg", "val2017/02.jpg", "train2017/03.jpg in train2017.zip",
    ]  # fmt: skip


def test_images_that_are_nowhere(tmp_path):
    folder(tmp_path, "train2017", ["a.jpg", "b.jpg", "c.jpg"])
    urls = ["http://x/a", None, None, "http://x/d"]
    with pytest.raises(DataError) as error:
        found(table(PATHS, urls), tmp_path)
    assert str(error.value) == (
        f"coco train2017: of 4 images these are not in {tmp_path} (train2017 and train2017.zip): "
        f"1 (train2017/d.jpg). Fetch them with `captionkit download coco --data-dir {tmp_path} "
        "--year 2017 --parts train`, or let each be read from the web with allow_urls; "
        "on_bad_image=skip goes on without them."
    )
    skipped = found(table(PATHS, urls), tmp_path, on_bad_image="skip")
    assert skipped == PATHS  # the one that is not there is the reader's to list
    assert found(table(PATHS, urls), tmp_path, allow_urls=True)[3] == "http://x/d"
    (tmp_path / "train2017" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"1 \(train2017/b.jpg\). They have no URL either"):
        found(table(PATHS, urls), tmp_path, allow_urls=True)


def test_none_at_all_is_an_error_under_skip_as_well(tmp_path):
    with pytest.raises(DataError, match=r"these are not in .*4 \(.*--parts train`\."):
        found(table(PATHS), tmp_path, on_bad_image="skip")


def test_a_damaged_zip_of_images_is_named(tmp_path):
    archive(tmp_path, "train2017.zip", PATHS)
    whole = (tmp_path / "train2017.zip").read_bytes()
    (tmp_path / "train2017.zip").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"train2017\.zip cannot be read as a zip file"):
        found(table(PATHS), tmp_path)
    folder(tmp_path, "train2017", NAMES)  # then it is not needed
    assert found(table(PATHS), tmp_path) == PATHS
    shutil.rmtree(tmp_path / "train2017")
