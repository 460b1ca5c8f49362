"""The command line, as a user types it."""

from __future__ import annotations

import json

import pytest

from captionkit.cli import main


@pytest.fixture
def photos(pairs, tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    pairs[0][0].save(folder / "a.png")
    pairs[1][0].save(folder / "inner" / "b.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "notes.md").write_text("no image")
    return folder


@pytest.fixture
def own_set(pairs, tmp_path):
    """A folder with a .txt beside each image, as image-generation trainers keep them."""
    folder = tmp_path / "own"
    folder.mkdir()
    for i, (image, texts) in enumerate(pairs):
        image.save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(texts[0] + "\n")
    return folder


def test_finetune_evaluate_and_caption_ones_own_folder(
    git_folder, own_set, photos, tmp_path, capsys
):
    out = tmp_path / "run"
    arguments = ["--model", str(git_folder), "--data-dir", str(own_set), "--device", "cpu"]
    status = main(
        ["finetune", *arguments, "--output_dir", str(out), "--max-steps", "3", "--batch-size", "4",
         "--learning-rate", "1e-3", "--metrics", "wer"]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert f"report     {out}/captionkit/report.html" in printed
    assert (out / "README.md").read_text().count("| WER |") == 1
    from captionkit.recipe import Recipe

    recipe = Recipe.from_file(out / "captionkit" / "recipe.yaml")
    assert recipe.training.max_steps == 3
    assert recipe.backend == "torch"
    assert recipe.backend_options == {"device": "cpu"}

    status = main(
        ["evaluate", "--model", str(out), "--data-dir", str(own_set), "--metrics", "wer", "rouge"]
    )
    printed = capsys.readouterr().out
    assert status == 0
    assert "images     2" in printed
    assert "rougeL" in printed

    assert main(["caption", str(photos), "--model", str(out), "--format", "jsonl"]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["image"] for row in rows] == [str(photos / "a.png"), str(photos / "inner/b.jpg")]
    assert all(row["score"] < 0 for row in rows)
    assert "broken.jpg" in captured.err
    assert "1 of 3 images skipped" in captured.err

    assert main(["caption", str(photos), "--model", str(out), "--format", "txt"]) == 0
    written = (photos / "a.txt").read_text()
    assert written.strip() == rows[0]["caption"]
    (photos / "a.txt").write_text("mine")
    capsys.readouterr()
    assert main(["caption", str(photos), "--model", str(out), "--format", "txt"]) == 0
    assert (photos / "a.txt").read_text() == "mine"
    assert "done       2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["finetun"], 2, "did you mean 'finetune'"),
        (["finetune"], 2, "Which model?"),
        (["finetune", "--recipe", "quikstart"], 2, "did you mean 'quickstart'"),
        (["finetune", "--model", "./none", "--dataset", "critters"], 1, "There is no folder"),
        (["finetune", "--recipe", "quickstart", "--precision", "fp16", "--device", "cpu"], 2,
         "needs a GPU"),
        (["caption", "--model", "git-tiny"], 2, "Which images?"),
        (["caption", "none.jpg", "--model", "git-tiny"], 1, "no file or folder none.jpg"),
        (["report", "."], 2, "not the folder of a run"),
    ],
)  # fmt: skip
def test_errors_are_one_message_and_a_status(
    arguments, status, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--learning-rat", "1"], "--learning-rate"), (["--batch-size", "0"], "batch_size=0")],
)
def test_wrong_flags_are_usage_errors_that_name_the_setting(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["finetune", "--recipe", "quickstart", *arguments])
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert words in captured.err + captured.out


def test_backends_are_listed(capsys):
    assert main(["backends"]) == 0
    assert "torch" in capsys.readouterr().out
