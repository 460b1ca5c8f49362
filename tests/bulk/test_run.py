"""Collections captioned into files, read back with other readers."""

from __future__ import annotations

import json
import os
import shutil

import pyarrow.parquet as pq
import pytest
from conftest import NAMES, draw, spoken
from fake_captioner import FakeCaptioner
from outputs import FORMATS, captions_in, expected_of, place_of

from captionkit.bulk import caption_files
from captionkit.errors import ConfigError, ImageError


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_holds_every_caption(photos, captioner, kind):
    settings, _ = place_of(photos, kind)
    result = caption_files(photos, captioner, batch_size=2, **settings)
    assert captions_in(photos, kind) == expected_of(photos)
    assert (result.captioned, result.kept, result.done, result.failed) == (5, 0, 0, 0)
    assert result.failed_file is None
    captioner.batches.clear()
    again = caption_files(str(photos), captioner, **settings)
    assert (again.captioned, again.done, captioner.batches) == (0, 5, [])
    draw(photos / "new.png", 9)
    assert caption_files(photos, captioner, **settings).captioned == 1
    assert captions_in(photos, kind) == expected_of(photos)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("existing", ["skip", "overwrite", "append", "prepend"])
def test_captions_that_are_there(photos, captioner, kind, existing):
    settings, path = place_of(photos, kind)
    caption_files(photos, captioner, **settings)
    own = spoken(photos / "a.png")
    # as another tool, or a person, may have left them
    if kind == "txt":
        (photos / "a.txt").write_text("mine")
    elif kind == "parquet":
        rows = pq.read_table(path)
        mine = [c if i != "photos/a.png" else "mine" for i, c in zip(*map(list, (
            rows["image"].to_pylist(), rows["caption"].to_pylist())))]  # fmt: skip
        pq.write_table(rows.set_column(1, "caption", [mine]), path)
    else:
        path.write_text(path.read_text().replace(own, "mine"))
    shutil.rmtree((photos if kind in ("txt", "metadata") else photos.parent) / ".captionkit")
    result = caption_files(photos, captioner, existing=existing, **settings)
    new = {
        "skip": "mine", "overwrite": own, "append": f"mine, {own}", "prepend": f"{own}, mine",
    }[existing]  # fmt: skip
    assert captions_in(photos, kind)["a.png"] == new
    assert result.kept == (5 if existing == "skip" else 0)
    assert result.captioned == (0 if existing == "skip" else 5)
    # the same again adds nothing twice
    once = captions_in(photos, kind)
    assert caption_files(photos, captioner, existing=existing, **settings).captioned == 0
    assert captions_in(photos, kind) == once


def test_the_other_rows_and_columns_of_a_file_stay(photos, captioner):
    rows = [
        {"file_name": "a.png", "label": 3, "text": "mine"},
        {"file_name": "not/here.png", "label": 4, "text": "kept"},
        {"file_name": "b.png", "label": 5, "text": ""},
    ]
    (photos / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = caption_files(photos, captioner, format="metadata")
    found = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    assert found[:2] == rows[:2]
    assert found[2] == {**rows[2], "text": spoken(photos / "b.png")}
    assert [row["file_name"] for row in found[3:]] == list(NAMES[2:])
    assert (result.captioned, result.kept) == (4, 1)


def test_what_others_read(photos, captioner, tmp_path):
    """`datasets` reads metadata.jsonl, and so do our own sources; and the .txt, and the jsonl."""
    from datasets import load_dataset

    import captionkit

    expected = sorted(expected_of(photos).values())
    caption_files(photos, captioner, format="metadata")
    table = load_dataset("imagefolder", data_dir=str(photos), cache_dir=str(tmp_path / "hf"))
    assert sorted(table["train"]["text"]) == expected
    ours = captionkit.load_dataset("imagefolder", data_dir=str(photos), test_size=0)
    assert sorted(example.captions[0] for example in ours) == expected
    (photos / "metadata.jsonl").unlink()
    caption_files(photos, captioner, format="txt")
    ours = captionkit.load_dataset("imagefolder", data_dir=str(photos), test_size=0)
    assert sorted(example.captions[0] for example in ours) == expected
    caption_files(photos, captioner, output=str(tmp_path / "all.jsonl"))
    ours = captionkit.load_dataset("jsonl", train_file=str(tmp_path / "all.jsonl"), test_size=0)
    assert sorted(example.captions[0] for example in ours) == expected


def test_text_files_may_lie_in_a_folder_of_their_own(photos, captioner, tmp_path):
    before = sorted(photos.rglob("*"))
    caption_files(photos, captioner, format="txt", output=str(tmp_path / "captions"))
    assert sorted(photos.rglob("*")) == before
    found = {p.relative_to(tmp_path / "captions") for p in (tmp_path / "captions").rglob("*.txt")}
    assert {str(p.with_suffix(".png")) for p in found} == set(NAMES)
    assert (tmp_path / "captions/inner/a.txt").read_text().strip() == spoken(photos / "inner/a.png")


def test_rows_hold_scores_alternatives_and_probabilities(photos, captioner, tmp_path):
    for kind in ("jsonl", "parquet"):
        output = tmp_path / f"x.{kind}"
        caption_files(
            photos, captioner, output=str(output), num_return_sequences=3, num_beams=3,
            token_probabilities=True,
        )  # fmt: skip
        if kind == "jsonl":
            rows = [json.loads(line) for line in output.read_text().splitlines()]
        else:
            rows = pq.read_table(output).to_pylist()
        assert len(rows) == 5
        others = [spoken(photos / "a.png", rank=rank) for rank in (1, 2)]
        assert [other["caption"] for other in rows[0]["alternatives"]] == others
        words = [token["token"] for token in rows[0]["token_probabilities"]]
        assert " ".join(words) == rows[0]["caption"] == spoken(photos / "a.png")


def test_two_thousand_critters_with_thirty_broken(tmp_path):
    from captionkit.data.critters import attributes
    from captionkit.data.critters_draw import draw as draw_critter

    folder = tmp_path / "critters"
    folder.mkdir()
    for number, critter in enumerate(attributes(250)):
        drawn = draw_critter(critter, 16, number)
        for turn in range(8):  # quicker than drawing
            picture = drawn if turn == 0 else drawn.transpose(turn - 1)
            picture.save(folder / f"{number * 8 + turn:04}.png", compress_level=1)
    broken = [f"{i * 61 + 7:04}.png" for i in range(30)]
    for i, name in enumerate(broken):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes((b"", b"text", content[: len(content) // 2])[i % 3])
    result = caption_files(folder, FakeCaptioner(), format="txt", batch_size=32)
    assert (result.captioned, result.failed) == (1970, 30)
    assert {p.stem for p in folder.glob("*.txt")} == {
        p.stem for p in folder.glob("*.png") if p.name not in broken
    }
    listed = [json.loads(line) for line in result.failed_file.read_text().splitlines()]
    assert [row["image"] for row in listed] == broken
    assert len({row["reason"] for row in listed}) == 3
    for name in ("0000.png", "1999.png"):
        assert (folder / name).with_suffix(".txt").read_text() == spoken(folder / name) + "\n"
    assert sorted(os.listdir(folder / ".captionkit" / "txt")) == [".lock", "journal.jsonl"]


def test_failures_are_tried_again_on_request_only(photos, captioner, tmp_path):
    good = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(good[:60])
    where = {"output": str(tmp_path / "x.jsonl")}
    first = caption_files(photos, captioner, **where)
    assert (first.captioned, first.failed) == (4, 1)
    (photos / "b.png").write_bytes(good)
    assert caption_files(photos, captioner, **where).failed == 1
    last = caption_files(photos, captioner, retry_failed=True, **where)
    assert (last.captioned, last.done, last.failed, last.failed_file) == (1, 4, 0, None)
    assert captions_of(tmp_path / "x.jsonl") == expected_of(photos)
    assert not list(tmp_path.glob("*.failed.jsonl"))


def captions_of(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["image"].removeprefix("photos/"): row["caption"] for row in rows}


def test_stop_at_the_first_bad_image_keeps_what_was_done(photos, captioner, tmp_path):
    (photos / "b.png").write_bytes(b"")
    settings = {"output": str(tmp_path / "x.jsonl"), "batch_size": 1, "workers": 1}
    with pytest.raises(ImageError, match=r"b\.png: it is empty \(0 bytes\)\. The captions so far"):
        caption_files(photos, captioner, on_bad_image="stop", **settings)
    assert captions_of(tmp_path / "x.jsonl")["a.png"] == spoken(photos / "a.png")
    with pytest.raises(ImageError, match=r"b\.png: it is empty"):  # it is not passed over either
        caption_files(photos, captioner, on_bad_image="stop", **settings)
    (photos / "b.png").write_bytes((photos / "a.png").read_bytes())
    assert caption_files(photos, captioner, on_bad_image="stop", **settings).failed == 0
    assert captions_of(tmp_path / "x.jsonl")["b.png"] == spoken(photos / "b.png")


def test_changed_settings_are_noticed(photos, tmp_path):
    class Other(FakeCaptioner):
        """Another model."""

    where = {"format": "txt"}
    caption_files(photos, FakeCaptioner(), **where)
    with pytest.raises(ConfigError, match="the model was FakeCaptioner and is Other"):
        caption_files(photos, Other(), **where)
    with pytest.raises(ConfigError, match="num_beams was 'the default' and is 4") as error:
        caption_files(photos, FakeCaptioner(), num_beams=4, **where)
    assert "existing=overwrite captions all anew" in str(error.value)
    with pytest.raises(ConfigError, match="prefix was '' and is 'x'"):
        caption_files(photos, FakeCaptioner(), prefix="x", dry_run=True, **where)
    assert caption_files(photos, FakeCaptioner(), batch_size=1, workers=1, **where).done == 5
    assert caption_files(photos, Other(), existing="skip", **where).kept == 5
    assert caption_files(photos, Other(), existing="overwrite", prefix="x", **where).captioned == 5
    assert (photos / "a.txt").read_text().startswith("x")
    result = caption_files(photos, Other(), existing="overwrite", prefix="x", **where)
    assert result.captioned == 0
    result = caption_files(photos, Other(), existing="overwrite", prefix="x", restart=True, **where)
    assert result.captioned == 5


def test_a_model_whose_weights_changed_is_another(photos, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(300_000))
    captioner = FakeCaptioner()
    captioner.checkpoint = model
    caption_files(photos, captioner, format="txt")
    captioner.checkpoint = model.rename(tmp_path / "renamed")
    assert caption_files(photos, captioner, format="txt").done == 5
    captioner.checkpoint = captioner.checkpoint.rename(model)
    (model / "model.safetensors").write_bytes(bytes(150_000) + b"1" * 150_000)
    with pytest.raises(ConfigError, match="the files of the model model have changed"):
        caption_files(photos, captioner, format="txt")


def test_captions_that_were_taken_away_are_made_again(photos, captioner):
    caption_files(photos, captioner, format="txt")
    (photos / "a.txt").unlink()
    (photos / "b.txt").write_text("")
    result = caption_files(photos, captioner, format="txt")
    assert (result.captioned, result.done) == (2, 3)
    assert captions_in(photos, "txt") == expected_of(photos)


def test_a_folder_that_is_moved_keeps_its_state(photos, captioner, tmp_path):
    caption_files(photos, captioner, format="txt")
    photos.rename(tmp_path / "moved")
    assert caption_files(tmp_path / "moved", captioner, format="txt").done == 5


def test_dry_run_says_what_would_be_done_and_does_nothing(photos, captioner):
    (photos / "b.txt").write_text("mine")
    before = sorted(photos.rglob("*"))
    result = caption_files(photos, captioner, format="txt", dry_run=True)
    assert (result.captioned, result.kept) == (4, 1)
    assert result.first == [str(photos / n) for n in ("a.png", "c d.png", "inner/a.png")]
    assert sorted(photos.rglob("*")) == before
    assert not captioner.batches


def test_doubtful_captions_are_listed_worst_first(photos, captioner, tmp_path):
    where = {"output": str(tmp_path / "x.jsonl")}
    caption_files(photos, captioner, **where)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    limit = sorted(row["score"] for row in rows)[3]
    # on a finished run nothing is captioned for it
    result = caption_files(photos, captioner, review_below=limit, **where)
    listed = [json.loads(line) for line in result.review_file.read_text().splitlines()]
    assert listed == sorted((r for r in rows if r["score"] < limit), key=lambda r: r["score"])
    assert (result.doubtful, result.captioned) == (3, 0)
    assert caption_files(photos, captioner, review_below=-9, **where).review_file is None


def test_two_images_of_one_name_do_not_share_a_caption(photos, captioner):
    draw(photos / "a.bmp", 77)
    for _ in range(2):
        result = caption_files(photos, captioner, format="txt", batch_size=1)
        assert result.failed == 1
        reason = json.loads(result.failed_file.read_text())
        assert reason["image"] == "a.png"
        assert "of the same name, but for the ending" in reason["reason"]
        assert (photos / "a.txt").read_text().strip() == spoken(photos / "a.bmp")
