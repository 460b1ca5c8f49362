"""The broken set in training and evaluation: stopped at, or skipped and listed.

The tests of every backend; its own file has the fixtures `settings` and `tiny_model`.
"""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
from broken_images import CASES

import captionkit
from captionkit import tracking
from captionkit.cli import main
from captionkit.data import load_dataset
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ImageError


def usable(case) -> bool:
    """Whether the case can be in a dataset at all; root reads what others may not."""
    return case.name != "locked.jpg" and "bad_name" not in case.finds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The broken set twice, as train and as validation, so that ids are in both."""
    root = tmp_path_factory.mktemp("broken")
    for split in ("train", "validation"):
        place = root / split
        place.mkdir()
        rows = []
        for case in filter(usable, CASES):
            case.write(place)
            rows.append(json.dumps({"file_name": case.name, "caption": "red above blue."}))
        (place / "metadata.jsonl").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    """The tiny model with an image processor that refuses what is very narrow."""
    copy = shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "m")
    processor = json.loads((copy / "preprocessor_config.json").read_text())
    processor |= {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 96},
        "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
    }  # fmt: skip
    (copy / "preprocessor_config.json").write_text(json.dumps(processor))
    assert Preprocessor.from_checkpoint(copy).size == 96
    return copy


def expected_bad():
    # 20,000 times as long as wide: it opens, and the model's preprocessing refuses it
    return {c.name for c in CASES if usable(c) and (not c.readable or c.name == "1x20000.png")}


@pytest.fixture(autouse=True)
def _pillow_may_warn():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.filterwarnings("ignore", message="All .* captions|.*same caption.*")
        yield


@pytest.fixture(scope="module")
def run_and_images(model, folder, settings, tmp_path_factory):
    """One epoch over the broken set, and how many images each update reported."""
    images = []
    real = tracking.Tracking.__call__

    def count(self, event):
        if event.kind == "step":
            images.append(event.values["images"])
        real(self, event)

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(tracking.Tracking, "__call__", count)
        result = captionkit.finetune(
            model=str(model), data_dir=str(folder), on_bad_image="skip", epochs=1,
            output_dir=str(tmp_path_factory.mktemp("runs") / "skip"), **settings,
        )  # fmt: skip
    return result, images


@pytest.fixture
def run(run_and_images):
    return run_and_images[0]


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_image_was_seen_or_is_on_the_list(run, folder):
    listed = rows(run.output_dir / "captionkit/skipped.jsonl")
    for split in ("train", "validation"):
        names = [row["image_id"] for row in listed if row["split"] == split]
        assert len(names) == len(set(names))
        assert set(names) == expected_bad()
    # those of validation that are not on it were captioned
    ids = load_dataset(data_dir=str(folder), split="validation", on_bad_image="skip").image_ids
    predicted = [r["image_id"] for r in rows(run.output_dir / "captionkit/predictions.jsonl")]
    assert len(predicted) == len(set(predicted))
    assert set(predicted) == set(ids) - expected_bad()


def test_the_updates_count_every_image_that_is_not_listed(run_and_images):
    _, images = run_and_images
    assert sum(images) == sum(map(usable, CASES)) - len(expected_bad())


def test_result_file_and_report_agree(run):
    listed = rows(run.output_dir / "captionkit/skipped.jsonl")
    bad = expected_bad()
    assert len(listed) == len(run.skipped) == 2 * len(bad)
    assert set(run.skipped) == bad | {f"validation: {name}" for name in bad}
    assert sorted(run.skipped.values()) == sorted(row["reason"] for row in listed)
    for row in listed:
        # a reason names the file of its own split
        assert f"{row['split']}/{row['image_id']}" in row["reason"] or "too narrow" in row["reason"]
    info = json.loads((run.output_dir / "captionkit/run.json").read_text())
    assert info["skipped"] == 2 * len(bad)
    page = run.report.read_text(encoding="utf-8")
    assert f'<th scope="row">Skipped images</th><td>{2 * len(bad):,}</td>' in page


def test_stop_names_the_file_and_the_reason(model, folder, settings, tmp_path):
    with pytest.raises(ImageError) as error:
        captionkit.finetune(
            model=str(model), data_dir=str(folder / "train"), test_size=0.0, epochs=1,
            output_dir=str(tmp_path / "run"), on_bad_image="stop",
            **settings,
        )  # fmt: skip
    assert any(name in str(error.value) for name in expected_bad())
    assert str(error.value).endswith("on_bad_image='skip' goes on without such images.")


def test_stop_on_the_command_line_is_a_message(model, folder, settings, tmp_path, capsys):
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items() if k != "metrics"]
    command = ["finetune", "--model", str(model), "--data-dir", str(folder / "train"), *flags,
               "--test-size", "0", "--output-dir", str(tmp_path / "run")]  # fmt: skip
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("captionkit: ")


def test_an_evaluation_lists_what_it_skips(run, folder, tmp_path, capsys):
    where = ["--model", str(run.output_dir), "--data-dir", str(folder), "--metrics", "wer"]
    out = tmp_path / "evaluation"
    command = [
        "evaluate", *where, "--output-dir", str(out), "--on-bad-image", "skip",
        "--batch-size", "64",
    ]  # fmt: skip
    assert main(command) == 0
    listed = rows(out / "skipped.jsonl")
    assert {row["image_id"] for row in listed} == expected_bad()
    assert len(listed) == len(expected_bad())
    predicted = {row["image_id"] for row in rows(out / "predictions.jsonl")}
    ids = load_dataset(data_dir=str(folder), split="validation", on_bad_image="skip").image_ids
    assert predicted == set(ids) - expected_bad()
    assert json.loads((out / "run.json").read_text())["skipped"] == len(listed)
    printed = capsys.readouterr().out
    assert (
        f"skipped    {len(listed)} images that cannot be read: {out / 'skipped.jsonl'}" in printed
    )
    # the first bad image stops it, and nothing is written
    assert main(["evaluate", *where, "--output-dir", str(tmp_path / "other")]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("captionkit: Image 'empty.jpg': ")
    assert err.endswith("it is empty (0 bytes). on_bad_image='skip' goes on without it.")
    assert not (tmp_path / "other").exists()
