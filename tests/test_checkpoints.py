"""Checkpoint folders: whole, damaged, newest, pruned."""

from __future__ import annotations

import json

import pytest

from captionkit import checkpoints
from captionkit.errors import CheckpointError, OutputError


@pytest.fixture
def run(tmp_path):
    for step in (5, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "state").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
        (folder / "state" / "rng").write_bytes(b"abc")
        checkpoints.write_manifest(folder)
    (tmp_path / "checkpoint-notes").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    return tmp_path


def test_newest_by_number_not_by_name(run):
    assert checkpoints.newest_whole(run).name == "checkpoint-100"


def truncate(folder):
    (folder / "model.safetensors").write_bytes(b"x")


def flip_a_bit(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[500] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def remove_a_file(folder):
    (folder / "state" / "rng").unlink()


def cut_off_while_writing(folder):
    (folder / checkpoints.MANIFEST).unlink()


def spoil_the_manifest(folder):
    (folder / checkpoints.MANIFEST).write_text("[]")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (truncate, "model.safetensors is damaged"),
        (flip_a_bit, "model.safetensors is damaged"),
        (remove_a_file, "state/rng is missing"),
        (cut_off_while_writing, "not written to the end"),
        (spoil_the_manifest, "manifest cannot be read"),
    ],
)
def test_damage_is_found_named_and_passed_over(run, harm, reason):
    harm(run / "checkpoint-100")
    assert reason in (checkpoints.damage(run / "checkpoint-100") or "")
    with pytest.warns(UserWarning, match=rf"checkpoint-100: .*{reason}"):
        assert checkpoints.newest_whole(run).name == "checkpoint-10"


def test_nothing_whole_is_an_error_that_says_what_to_do(run, tmp_path):
    for step in (5, 10, 100):
        truncate(run / f"checkpoint-{step}")
    with (
        pytest.warns(UserWarning, match="Passing over"),
        pytest.raises(CheckpointError, match=r"none of its checkpoints is whole.*overwrite"),
    ):
        checkpoints.newest_whole(run)


def test_a_run_that_was_cut_off_before_its_first_checkpoint_begins_anew(tmp_path):
    with pytest.warns(UserWarning, match="No checkpoint was saved in .* starting from the first"):
        assert checkpoints.newest_whole(tmp_path) is None
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "model.safetensors").write_bytes(b"half")
    with pytest.warns(UserWarning, match="checkpoint") as said:
        assert checkpoints.newest_whole(tmp_path) is None
    assert "checkpoint-5: it was not written to the end" in str(said[0].message)
    # but a finished model, whose run kept no checkpoints, is not given up
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with (
        pytest.warns(UserWarning, match="Passing over"),
        pytest.raises(CheckpointError, match="none of its checkpoints is whole"),
    ):
        checkpoints.newest_whole(tmp_path)


def test_what_cannot_be_written_leaves_no_half_and_names_the_last_whole_one(run):
    folder = run / "checkpoint-101"

    def write():
        with checkpoints.removed_unless_written(folder):
            checkpoints.begin(folder)
            (folder / "half").write_text("x")
            raise RuntimeError("PytorchStreamWriter failed writing file")

    words = r"checkpoint-101 could not .*PytorchStream.* resume goes on from checkpoint-100"
    with pytest.raises(OutputError, match=words):
        write()
    assert not folder.exists()


def test_a_run_whose_folder_is_gone_does_not_make_it_anew(tmp_path):
    folder = tmp_path / "gone" / "checkpoint-1"
    with (
        pytest.raises(OutputError, match="the folder of the run is gone"),
        checkpoints.removed_unless_written(folder),
    ):
        checkpoints.begin(folder)
    assert not folder.parent.exists()


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    for name in (
        ".metrics.json.77.tmp",
        ".samples.png.77.8.partial",
        ".lock",
        "metrics.json",
        "notes.tmp",
        ".mine.tmp",
    ):
        (tmp_path / name).write_text("")
    checkpoints.remove_temporary_files(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".lock", "metrics.json", "notes.tmp", ".mine.tmp"}


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(None, None, [5, 10, 100]), (1, None, [100]), (1, 5, [5, 100]), (2, 100, [10, 100])],
)
def test_pruning_keeps_the_newest_and_the_best(run, keep, best, left):
    checkpoints.prune(run, keep, best)
    assert sorted(map(checkpoints.step_of, checkpoints.all_checkpoints(run))) == left


def test_an_old_checkpoint_that_cannot_be_removed_is_a_warning(run, monkeypatch):
    def refused(_):
        raise PermissionError(13, "Permission denied", "rng")

    monkeypatch.setattr(checkpoints.shutil, "rmtree", refused)
    with pytest.warns(UserWarning, match=r"checkpoint-(5|10) cannot be removed: Permission denied"):
        checkpoints.prune(run, 1, None)


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    checkpoints.write_atomically(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_are_not_utf_8_are_escaped(tmp_path):
    path = tmp_path / "skipped.jsonl"
    checkpoints.write_atomically(path, '{"image_id": "\udcff.png"}\n')
    assert json.loads(path.read_text("utf-8")) == {"image_id": "\udcff.png"}
