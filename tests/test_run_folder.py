"""What a run's folder may hold, and what it must not be written over."""

from __future__ import annotations

import pytest

from captionkit.errors import OutputError
from captionkit.recipe import Recipe
from captionkit.run_folder import RunFolder


@pytest.fixture
def earlier(tmp_path):
    """The folder of a run that got to its first step."""
    run = RunFolder(tmp_path / "run")
    run.folder.mkdir(parents=True)
    run.recipe.write_text(Recipe(model="git-tiny").to_yaml())
    run.history.write_text('{"step": 1}\n')
    return run


FILES = ("data_dir", "train_file", "validation_file", "test_file")


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_data_in_the_folder_are_not_overwritten(earlier, tmp_path, name, mixed):
    def recipe(place):
        data = {"mix": ({name: str(place)},)} if mixed else {name: str(place)}
        return Recipe(model="git-tiny", overwrite_output_dir=True).replace(**data)

    for place in (earlier.root / "mine", tmp_path / "elsewhere"):
        place.mkdir()
    with pytest.raises(OutputError, match="mine lies in output_dir"):
        earlier.check(recipe(earlier.root / "mine"))
    earlier.check(recipe(tmp_path / "elsewhere"))
