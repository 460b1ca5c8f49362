"""What a run's folder may hold, and what it must not be written over."""

from __future__ import annotations

import pytest

from captionkit.data.dataset import CaptionDataset
from captionkit.errors import OutputError
from captionkit.evaluation import Evaluation
from captionkit.recipe import Recipe
from captionkit.run_folder import RunFolder, write_evaluation_report


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


@pytest.mark.parametrize("name", ["metrics.json", "run.json", "report.html"])
def test_what_cannot_be_written_of_an_evaluation_is_an_error_of_ours(tmp_path, name):
    (tmp_path / name / "in the way").mkdir(parents=True)
    dataset = CaptionDataset.from_pairs([("a.png", "a red dog")], "one")
    with pytest.raises(OutputError, match="Cannot write"):
        write_evaluation_report(tmp_path, Evaluation({}, [], []), dataset, {"seconds": 1.0})
