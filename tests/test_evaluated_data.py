"""A model is evaluated on what its training held out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from captionkit.data import load_splits
from captionkit.errors import ConfigError, DataError
from captionkit.evaluated_data import evaluated_dataset
from captionkit.recipe import Recipe


@pytest.fixture
def photos(tmp_path):
    """Forty photos, every two of which are the same file, with captions of one to six words."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        Image.fromarray(np.full((4, 4, 3), i // 2, np.uint8)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(" ".join(["dog"] * (1 + i % 6)))
    return folder


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"test_size": 0.3}, {"seed": 7}, {"group_by_content": True, "test_size": 0.2},
        {"min_caption_words": 4}, {"max_caption_words": 3, "group_by_content": True},
    ],
)  # fmt: skip
@pytest.mark.parametrize("relative", [False, True])
def test_the_images_that_were_held_out(photos, settings, relative, monkeypatch):
    recipe = Recipe(model="git-tiny").replace(data_dir=str(photos), **settings)
    train, held_out = load_splits(recipe.data, recipe.training.seed)
    monkeypatch.chdir(photos.parent)
    given = {"data_dir": "photos" if relative else str(photos)}
    found = evaluated_dataset("", given, None, recipe)
    assert found.image_ids == held_out.image_ids
    assert not set(found.image_ids) & set(train.image_ids)


def test_of_other_data_nothing_is_left_out(photos):
    recipe = Recipe(model="git-tiny").replace(
        data_dir=str(photos.parent / "others"), min_caption_words=4, test_size=0.25
    )
    found = evaluated_dataset("", {"data_dir": str(photos)}, None, recipe)
    assert len(found) == 10


def test_a_run_on_the_validation_split(photos):
    (photos.parent / "set").mkdir()
    photos.rename(photos.parent / "set" / "validation")
    home = photos.parent / "set"
    recipe = Recipe(model="git-tiny").replace(
        data_dir=str(home), split="validation", test_size=0.25
    )
    train, held_out = load_splits(recipe.data, recipe.training.seed)
    found = evaluated_dataset("", {"data_dir": str(home)}, None, recipe)
    assert found.image_ids == held_out.image_ids
    whole = evaluated_dataset("", {"data_dir": str(home), "split": "validation"}, None, recipe)
    assert len(whole) == len(train) + len(held_out)
    with pytest.raises(DataError, match="nothing of it was held out"):
        evaluated_dataset("", {"data_dir": str(home)}, None, recipe.replace(test_size=0))


def test_a_stream(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = b"\x89PNG no more"
    rows = [{"image": {"bytes": content, "path": None}, "caption": f"dog {i}"} for i in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    file = str(tmp_path / "s.parquet")
    given = {"test_file": file, "streaming": True, "split": "test"}
    with pytest.raises(ConfigError, match="set max_eval_samples=N to evaluate its first N"):
        evaluated_dataset("parquet", given, None, None)
    found = evaluated_dataset("parquet", {**given, "max_eval_samples": 3}, None, None)
    assert len(found) == 3
    given = {"train_file": file, "streaming": True, "split": "train", "max_train_samples": 4}
    found = evaluated_dataset("parquet", {**given, "max_eval_samples": 2}, None, None)
    assert len(found) == 2
