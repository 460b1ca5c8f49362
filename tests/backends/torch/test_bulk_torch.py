"""Bulk captioning with a torch model: what it writes is what the captioner says."""

from __future__ import annotations

import json
import shutil

import pytest

import captionkit
from captionkit.cli import main


@pytest.fixture
def photos(pairs, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (image, _) in enumerate(pairs):
        image.save(folder / f"{number:02}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def rows_of(captioner, photos, output, **settings):
    output.unlink(missing_ok=True)
    result = captionkit.caption_files(photos, captioner, output=str(output), **settings)
    assert result.failed == 1
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.parametrize("decoding", [{}, {"num_beams": 3, "num_return_sequences": 2}])
@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_it_writes_what_the_captioner_says(captioner, photos, tmp_path, decoding, batch_size):
    paths = sorted(photos.glob("[0-9]*.png"))
    count = decoding.get("num_return_sequences", 1)
    rows = rows_of(captioner, photos, tmp_path / "x.jsonl", batch_size=batch_size, **decoding)
    for path, row in zip(paths, rows, strict=True):
        alone = captioner.caption(path, **decoding)
        others = row.get("alternatives", [])
        assert [row["caption"], *(o["caption"] for o in others)] == [c.text for c in alone]
        assert row["score"] == pytest.approx(alone[0].score, abs=1e-4)
        assert len(others) == count - 1


def test_draws_do_not_depend_on_the_batch(captioner, photos, tmp_path):
    drawn = [
        rows_of(captioner, photos, tmp_path / f"{n}.jsonl", batch_size=n, do_sample=True, seed=3)
        for n in (1, 4, 32)
    ]
    texts = [[row["caption"] for row in rows] for rows in drawn]
    assert texts[0] == texts[1] == texts[2]
    other = rows_of(captioner, photos, tmp_path / "o.jsonl", do_sample=True, seed=4)
    assert [row["caption"] for row in other] != texts[0]


def test_token_probabilities_are_kept(captioner, photos, tmp_path):
    rows = rows_of(captioner, photos, tmp_path / "x.jsonl", token_probabilities=True)
    for row in rows:
        assert all(0 <= token["probability"] <= 1 for token in row["token_probabilities"])


SMALL_GIT = {
    "model_type": "git",
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "vision_config": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "image_size": 64, "patch_size": 16,
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The 85 captions:UserWarning")
@pytest.mark.filterwarnings("ignore:.*same caption:UserWarning")
@pytest.mark.acceptance
def test_the_photos_of_coco_with_a_model_trained_on_them(shared_data, tmp_path, capsys):
    model = tmp_path / "small-git"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(SMALL_GIT))
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(shared_data / "tokenizers/bert-base-uncased" / name, model / name)
    status = main(
        ["finetune", "--model", str(model), "--dataset", "coco", "--data-dir",
         str(shared_data / "coco-mini"), "--output_dir", str(tmp_path / "trained"),
         "--captions", "first", "--epochs", "12", "--batch-size", "8", "--learning-rate", "2e-3",
         "--eval-steps", "0", "--save-steps", "0", "--device", "cpu", "--precision", "fp32"]
    )  # fmt: skip
    assert status == 0
    shutil.copytree(shared_data / "coco-mini" / "train2017", tmp_path / "photos")
    shutil.copytree(shared_data / "coco-mini" / "val2017", tmp_path / "photos" / "val")
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    command = ["caption", str(tmp_path / "photos"), "--model", str(tmp_path / "trained")]
    assert main([*command, "--format", "txt", "--device", "cpu"]) == 0
    assert f"captioned  {len(paths)}" in capsys.readouterr().out
    captioner = captionkit.load(tmp_path / "trained", device="cpu")
    for path, caption in zip(paths, captioner.caption(paths), strict=True):
        assert path.with_suffix(".txt").read_text() == caption.text + "\n"
