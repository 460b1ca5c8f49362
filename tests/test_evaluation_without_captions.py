"""Images of a test split, whose captions are not public: captioned, but not scored."""

import json

import numpy as np
import pytest
from PIL import Image

from captionkit.api import evaluate
from captionkit.data import load_dataset
from captionkit.errors import DataError
from captionkit.types import Caption


class Colours:
    """Says how red an image is; has no loss to give without captions."""

    def encode(self, images):
        return images

    def caption(self, images, **decoding):
        return [Caption(f"red {np.asarray(image)[0, 0, 0]}", -0.5) for image in images]

    def loss(self, images, captions):
        raise AssertionError("there is nothing to compare with")


class Deaf(Colours):
    """Fails if it is used at all."""

    def encode(self, images):
        raise AssertionError("it was asked to caption")


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data" / "test2017").mkdir(parents=True)
    for i in range(12):
        file = tmp_path / "data" / "test2017" / f"{i + 1:012d}.png"
        Image.new("RGB", (8, 8), (i, 0, 0)).save(file)
        file.rename(file.with_suffix(".jpg"))
    return {"data_dir": str(tmp_path / "data"), "split": "test"}


def test_predictions_are_written_where_no_metrics_are_asked_for(data, tmp_path):
    result = evaluate(Colours(), "coco", metrics=(), output_dir=tmp_path / "out", **data)
    assert result.metrics == {}
    assert [(row.image_id, row.prediction) for row in result.predictions] == [
        (str(i + 1), f"red {i}") for i in range(12)
    ]
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert json.loads(lines[3]) == {
        "image_id": "4", "prediction": "red 3", "score": -0.5, "references": [], "metrics": {},
    }  # fmt: skip
    assert "red 11" in (tmp_path / "out" / "report.html").read_text()


def test_metrics_of_them_are_refused_before_anything_is_captioned(data):
    with pytest.raises(DataError, match=r"coco test2017 has no captions.*metrics=\(\)"):
        evaluate(Deaf(), "coco", **data)


def test_captions_are_changed_in_place_of_images_without_any(data):
    dataset = load_dataset("coco", **data)
    assert dataset.map_captions(str.lower).image_ids == dataset.image_ids
    assert not dataset.map_captions(str.lower).has_captions
