"""Bulk captioning with a model: what it writes is what the captioner says.

The tests of every backend; its own folder has the fixtures `captioner` and `pairs`.
"""

from __future__ import annotations

import json

import pytest

import captionkit


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
    paths = sorted(photos.glob("[0-9]*.png"))
    rows = rows_of(captioner, photos, tmp_path / "x.jsonl", token_probabilities=True)
    captions = captioner.caption(paths, token_probabilities=True)
    for row, caption in zip(rows, captions, strict=True):
        pieces, chances = zip(*caption.token_probabilities, strict=True)
        kept = row["token_probabilities"]
        assert [token["token"] for token in kept] == list(pieces)
        assert [token["probability"] for token in kept] == pytest.approx(chances, abs=1e-4)
