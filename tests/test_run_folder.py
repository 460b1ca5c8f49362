"""What a run's folder may hold, and what it must not be written over."""

from __future__ import annotations

import pytest

from captionkit.data.dataset import CaptionDataset
from captionkit.errors import ConfigError, OutputError
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


OVERWRITE = Recipe(model="git-tiny", overwrite_output_dir=True)


def files_of(run):
    return {
        str(path.relative_to(run.root)): path.read_text()
        for path in run.root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def whole(earlier):
    """That run at its end."""
    for name in ("checkpoint-2/model.safetensors", "model.safetensors", "captionkit/tb/events"):
        (earlier.root / name).parent.mkdir(exist_ok=True)
        (earlier.root / name).write_text(f"earlier {name}")
    (earlier.root / "notes.md").write_text("mine")
    return earlier


def test_a_run_that_does_not_start_leaves_the_earlier_one(whole):
    before = files_of(whole)

    def start():
        with whole.locked(OVERWRITE, None):
            assert not (whole.root / "checkpoint-2").exists()
            whole.history.write_text("")
            (whole.root / "config.json").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start()
    assert files_of(whole) == before


def test_a_run_that_starts_takes_the_place_of_the_earlier_one(whole):
    with whole.locked(OVERWRITE, None):
        whole.started()
        whole.history.write_text("new")
    names = {"notes.md", "captionkit/history.jsonl", "captionkit/recipe.yaml"}
    assert set(files_of(whole)) == names
    assert whole.history.read_text() == "new"


def test_an_earlier_run_is_found_again_after_a_kill_before_the_start(whole, monkeypatch):
    before = files_of(whole)
    with monkeypatch.context() as killed, whole.locked(OVERWRITE, None):
        killed.setattr(RunFolder, "_bring_back_earlier_run", lambda self: None)
    assert not (whole.root / "model.safetensors").exists()
    whole.check(OVERWRITE)

    def again():
        with whole.locked(OVERWRITE, None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again()
    assert files_of(whole) == before


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


@pytest.mark.parametrize("change", [{"best_metric": "wer"}, {"load_best": False}])
def test_a_run_goes_on_with_the_weights_that_it_set_out_to_keep(earlier, change):
    earlier.check(Recipe(model="git-tiny", resume=True))
    earlier.check(Recipe(model="git-tiny", resume=True).replace(eval_steps=2))
    with pytest.raises(ConfigError, match=f"cannot go on as another one: {next(iter(change))} was"):
        earlier.check(Recipe(model="git-tiny", resume=True).replace(**change))


@pytest.mark.parametrize("name", ["metrics.json", "run.json", "report.html"])
def test_what_cannot_be_written_of_an_evaluation_is_an_error_of_ours(tmp_path, name):
    (tmp_path / name / "in the way").mkdir(parents=True)
    dataset = CaptionDataset.from_pairs([("a.png", "a red dog")], "one")
    with pytest.raises(OutputError, match="Cannot write"):
        write_evaluation_report(tmp_path, Evaluation({}, [], []), dataset, {"seconds": 1.0})
