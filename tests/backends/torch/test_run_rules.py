"""What a run must never do: overwrite, forget, mix up, or go on as another."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

import captionkit
from captionkit import checkpoints
from captionkit.cli import main
from captionkit.errors import CheckpointError, ConfigError, DataError, OutputError
from captionkit.run_folder import RunFolder

SMALL = {
    "device": "cpu", "batch_size": 4, "learning_rate": 1e-3, "eval_batch_size": 8,
    "test_size": 0.25, "metrics": ["wer"], "max_new_tokens": 8, "logging_steps": 1,
    "precision": "fp32",
}  # fmt: skip


def run(model, pairs, output_dir, **settings):
    return captionkit.finetune(
        model=str(model), dataset=pairs, output_dir=str(output_dir), **{**SMALL, **settings}
    )


@pytest.fixture
def folder_set(pairs, tmp_path):
    """The pairs as a folder, so that a run can be repeated from its recipe."""
    folder = tmp_path / "own set"
    folder.mkdir()
    for i, (image, texts) in enumerate(pairs):
        image.save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(texts[0])
    return folder


def test_the_model_that_is_trained_is_not_overwritten(git_folder, pairs, tmp_path):
    first = run(git_folder, pairs, tmp_path / "run", max_steps=2)
    before = (first.output_dir / "model.safetensors").read_bytes()
    for model in (first.output_dir, first.output_dir / "checkpoint-2"):
        with pytest.raises(OutputError, match="lies in output_dir"):
            run(model, pairs, first.output_dir, overwrite_output_dir=True)
    assert (first.output_dir / "model.safetensors").read_bytes() == before


def test_only_what_a_run_wrote_is_replaced(git_folder, pairs, tmp_path):
    source = tmp_path / "clone"
    (source / "captionkit").mkdir(parents=True)
    (source / "captionkit" / "api.py").write_text("code")
    with pytest.raises(OutputError, match="not those of an earlier run"):
        run(git_folder, pairs, source, overwrite_output_dir=True)
    assert (source / "captionkit" / "api.py").read_text() == "code"

    first = run(git_folder, pairs, tmp_path / "run", max_steps=2)
    (first.output_dir / "my_labels.json").write_text("mine")
    (first.output_dir / "README.md").write_text("my own words about captionkit")
    run(git_folder, pairs, first.output_dir, max_steps=2, overwrite_output_dir=True)
    assert (first.output_dir / "my_labels.json").read_text() == "mine"
    assert (first.output_dir / "README.md").read_text() == "my own words about captionkit"


def test_a_failed_start_does_not_stand_in_the_way(git_folder, pairs, tmp_path):
    with pytest.raises(ConfigError, match="matches no tensor"):
        run(git_folder, pairs, tmp_path / "run", freeze=["nothing.*"])
    assert run(git_folder, pairs, tmp_path / "run", max_steps=1).metrics


def test_damaged_checkpoints_do_not_push_out_whole_ones(git_folder, pairs, tmp_path):
    settings = {"epochs": 3, "save_total_limit": 2, "eval_steps": 3, "save_steps": 1}
    first = run(git_folder, pairs, tmp_path / "run", **settings)
    assert {p.name for p in first.output_dir.glob("checkpoint-*")} >= {"checkpoint-8"}
    (first.output_dir / "checkpoint-9" / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint-") as said:
        again = run(git_folder, pairs, tmp_path / "run", resume=True, **settings)
    assert "checkpoint-9: model.safetensors is damaged" in str(said[0].message)
    assert checkpoints.damage(again.output_dir / "checkpoint-9") is None
    assert (again.output_dir / "damaged-checkpoint-9").is_dir()


def test_a_best_checkpoint_that_is_gone_is_not_waited_for(git_folder, pairs, tmp_path):
    settings = {"epochs": 3, "save_steps": 1, "learning_rate": 0.5, "schedule": "constant"}
    first = run(git_folder, pairs, tmp_path / "run", **settings)
    rows = [row for row in first.history if "eval_loss" in row]
    best = min(rows, key=lambda row: row["eval_loss"])["step"]
    assert best != 9, "the rate should have spoiled the model"
    shutil.rmtree(first.output_dir / f"checkpoint-{best}")
    with pytest.warns(
        UserWarning, match=rf"best checkpoint so far, .*-{best}, is lost: it is miss"
    ):
        again = run(git_folder, pairs, tmp_path / "run", resume=True, **settings)
    last = load_file(again.output_dir / "checkpoint-9" / "model.safetensors")
    final = load_file(again.output_dir / "model.safetensors")
    assert all((last[name] == final[name]).all() for name in last)
    assert again.metrics["loss"] == pytest.approx(rows[-1]["eval_loss"])


def test_a_run_goes_on_only_as_itself(git_folder, pairs, tmp_path):
    run(git_folder, pairs, tmp_path / "run", max_steps=2)
    with pytest.raises(ConfigError, match=r"learning_rate was 0.001 and is 1e-05 now") as error:
        run(git_folder, pairs, tmp_path / "run", resume=True, learning_rate=1e-5, seed=3)
    assert "seed was 42" in str(error.value)
    longer = run(git_folder, pairs, tmp_path / "run", resume=True, max_steps=4)
    assert longer.history[-1]["step"] == 4
    with pytest.raises(OutputError, match="no run to resume"):
        run(git_folder, pairs, tmp_path / "nothing", resume=True)


def test_a_run_is_repeated_and_resumed_from_its_recipe(
    git_folder, folder_set, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    flags = ["--max-steps", "2", "--batch-size", "4", "--metrics", "wer", "--device", "cpu"]
    first = ["finetune", "--model", str(git_folder), "--data-dir", str(folder_set), *flags]
    assert main([*first, "--gradient-checkpointing", "--output-dir", "a run"]) == 0
    recipe = "a run/captionkit/recipe.yaml"
    written = captionkit.Recipe.from_file(recipe)
    assert written.training.gradient_checkpointing
    assert written.backend_options == {"device": "cpu"}
    again = ["finetune", "--recipe", recipe, "--no-gradient-checkpointing"]
    assert main([*again, "--output-dir", "again"]) == 0
    written = captionkit.Recipe.from_file("again/captionkit/recipe.yaml")
    assert not written.training.gradient_checkpointing
    assert written.backend_options == {"device": "cpu"}
    assert main(["finetune", "--resume", "--output-dir", "a run", "--max-steps", "3"]) == 0
    assert len((tmp_path / "a run/captionkit/history.jsonl").read_text().splitlines()) >= 1
    capsys.readouterr()


def test_two_runs_in_one_folder(git_folder, pairs, tmp_path):
    import filelock

    folder = RunFolder(tmp_path / "run")
    folder.folder.mkdir(parents=True)
    with (
        filelock.FileLock(folder.folder / ".lock"),
        pytest.raises(OutputError, match="Another run is writing"),
    ):
        run(git_folder, pairs, tmp_path / "run", max_steps=1)


def test_an_evaluation_uses_the_split_of_the_training(git_folder, folder_set, tmp_path):
    result = captionkit.finetune(
        model=str(git_folder), data_dir=str(folder_set), output_dir=str(tmp_path / "run"),
        **{**SMALL, "seed": 7, "max_steps": 2},
    )  # fmt: skip
    rows = (result.output_dir / "captionkit/predictions.jsonl").read_text().splitlines()
    held_out = {json.loads(row)["image_id"] for row in rows}
    evaluated = captionkit.evaluate(
        result.output_dir, "", data_dir=str(folder_set), metrics=["wer"], max_new_tokens=8
    )
    assert {p.image_id for p in evaluated.predictions} == held_out
    assert evaluated.metrics == pytest.approx(result.metrics)
    by_default = captionkit.evaluate(
        result.output_dir, "", data_dir=str(folder_set), max_new_tokens=8
    )
    assert by_default.metrics == evaluated.metrics  # the metrics that the run had, too
    other = captionkit.evaluate(
        result.captioner, "", data_dir=str(folder_set), metrics=["wer"], seed=8
    )
    assert {p.image_id for p in other.predictions} != held_out


def test_skipped_validation_images_are_counted_and_listed(git_folder, pairs, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    import datasets

    split = datasets.DatasetDict(
        train=hf_set(pairs[:12]), validation=hf_set([*pairs[12:], (str(bad), ["x"])])
    )
    result = run(git_folder, split, tmp_path / "run", max_steps=2, on_bad_image="skip")
    assert len(result.skipped) == 1
    assert "bad.jpg" in (result.output_dir / "captionkit/skipped.jsonl").read_text()
    assert json.loads((result.output_dir / "captionkit/run.json").read_text())["skipped"] == 1


def hf_set(pairs):
    import datasets

    rows = {"image": [image for image, _ in pairs], "text": [texts[0] for _, texts in pairs]}
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def test_nothing_readable_is_no_success(git_folder, tmp_path):
    bad = []
    for i in range(4):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(b"no image")
        bad.append((str(path), f"caption {i}"))
    with pytest.raises(DataError, match="None of the training images of"):
        run(git_folder, bad, tmp_path / "run", epochs=2, test_size=0, on_bad_image="skip")
    assert not (tmp_path / "run/model.safetensors").exists()


def test_a_bad_image_in_a_worker_is_one_line(git_folder, pairs, tmp_path):
    path = tmp_path / "bad.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(captionkit.CaptionkitError, match=r"bad\.jpg.*on_bad_image='skip'") as error:
        run(git_folder, [*pairs, (str(path), "x")], tmp_path / "run", workers=2, test_size=0)
    assert "Traceback" not in str(error.value)


def test_tensors_that_the_config_has_no_place_for(git_folder, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(git_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"unknown to the model: git\.encoder\.layer\.1"):
        captionkit.load(folder, device="cpu")


def test_constants_of_older_files_are_no_surprise(git_folder, captioner, pairs, tmp_path):
    import torch

    folder = tmp_path / "checkpoint"
    shutil.copytree(git_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["git.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    again = captionkit.load(folder, device="cpu").caption(pairs[0][0])
    # the other tensors lie elsewhere in the file, which changes the last bit of some sums
    expected = captioner.caption(pairs[0][0])
    assert [caption.text for caption in again] == [caption.text for caption in expected]
    assert again[0].score == pytest.approx(expected[0].score, abs=1e-6)


def test_weights_in_another_form_are_not_replaced_by_random_ones(git_folder, pairs, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(git_folder, folder)
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    with pytest.raises(CheckpointError, match=r"form that is not read: tf_model\.h5"):
        run(folder, pairs, tmp_path / "run")


def test_a_run_that_was_stopped_early_stays_stopped(git_folder, pairs, tmp_path):
    settings = {
        "epochs": 20, "learning_rate": 0.5, "schedule": "constant", "eval_steps": 1,
        "early_stopping_patience": 2,
    }  # fmt: skip
    first = run(git_folder, pairs, tmp_path / "run", **settings)
    with pytest.raises(ConfigError, match=f"stopped early, after step {first.history[-1]['step']}"):
        run(git_folder, pairs, tmp_path / "run", resume=True, **settings)
    longer = {**settings, "early_stopping_patience": 4}
    again = run(git_folder, pairs, tmp_path / "run", resume=True, **longer)
    assert again.history[-1]["step"] == first.history[-1]["step"] + 2
