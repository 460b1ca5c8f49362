"""The evaluation loop, with a captioner that says what it is told."""

from __future__ import annotations

import json

import jiwer
import numpy as np
import pytest
from PIL import Image

import captionkit
from captionkit.data.dataset import CaptionDataset
from captionkit.errors import ConfigError, DataError, ImageError, MetricError
from captionkit.evaluation import Evaluator, evaluate_captioner, read_predictions
from captionkit.recipe import Decoding
from captionkit.types import Caption, Scores


class Parrot:
    """Reads the caption off the image's first pixel; its losses are known."""

    def __init__(self, texts):
        self.texts = texts
        self.calls = []

    def encode(self, images):
        return [image.getpixel((0, 0))[0] for image in images]

    def caption(self, images, **decoding):
        self.calls.append((len(images), decoding))
        return [Caption(self.texts[i], -0.1 * i) for i in images]

    def loss(self, images, captions):
        tokens = sum(len(text.split()) for texts in captions for text in texts)
        return 2.0 * tokens + len(images), tokens


def grey(value):
    return Image.fromarray(np.full((4, 4, 3), value, np.uint8))


TEXTS = ["a red dog", "a cat", "two birds fly", "snow", "a man on a bike"]
REFERENCES = [["a red dog", "one dog"], ["the cat"], ["birds"], ["snow falls"], ["a bike"]]


@pytest.fixture
def dataset():
    pairs = [(grey(i), references) for i, references in enumerate(REFERENCES)]
    return CaptionDataset.from_pairs(pairs, "greys")


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_scores_do_not_depend_on_the_batch_size(dataset, batch_size):
    captioner = Parrot(TEXTS)
    result = evaluate_captioner(captioner, dataset, ["wer"], Decoding(num_beams=3), batch_size)
    nearest = ["a red dog", "the cat", "birds", "snow falls", "a bike"]
    assert result.metrics["wer"] == pytest.approx(jiwer.wer(nearest, TEXTS))
    assert [p.prediction for p in result.predictions] == TEXTS
    assert [p.references for p in result.predictions] == [tuple(r) for r in REFERENCES]
    assert result.predictions[0].metrics == {"wer": 0.0}
    assert all(decoding["num_beams"] == 3 for _, decoding in captioner.calls)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_batch_size_that_is_not_possible(dataset, size):
    with pytest.raises(ConfigError, match=r"batch_size=.* at least 1"):
        captionkit.evaluate(Parrot(TEXTS), dataset, batch_size=size)


def test_metrics_may_be_objects_of_ones_own(dataset):
    class Words:
        keys = ("words",)
        higher_is_better = True

        def __init__(self):
            self.counts = []

        def update(self, prediction, references):
            self.counts.append(len(prediction.split()))

        def compute(self):
            return Scores({"words": sum(self.counts)}, {"words": self.counts})

    result = captionkit.evaluate(Parrot(TEXTS), dataset, metrics=["wer", Words()])
    assert result.metrics["words"] == sum(len(text.split()) for text in TEXTS)
    assert [p.metrics["words"] for p in result.predictions] == [3, 2, 3, 1, 5]
    assert set(result.metrics) == {"loss", "wer", "words"}
    with pytest.raises(MetricError, match="should be a name or an object"):
        captionkit.evaluate(Parrot(TEXTS), dataset, metrics=[Words])


def test_loss_is_weighted_by_tokens(dataset):
    result = evaluate_captioner(Parrot(TEXTS), dataset, ["wer"], batch_size=2)
    tokens = sum(len(text.split()) for texts in REFERENCES for text in texts)
    assert result.metrics["loss"] == pytest.approx((2.0 * tokens + 5) / tokens)


def test_a_bad_image_stops_or_is_skipped_and_listed(dataset, tmp_path):
    good = [(grey(0), "a red dog"), (grey(1), "a cat")]
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    mixed = CaptionDataset.from_pairs([good[0], (str(tmp_path / "bad.jpg"), "x"), good[1]], "mixed")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        evaluate_captioner(Parrot(TEXTS), mixed, ["wer"])
    result = evaluate_captioner(Parrot(TEXTS), mixed, ["wer"], on_bad_image="skip")
    assert [p.prediction for p in result.predictions] == ["a red dog", "a cat"]
    assert len(result.skipped) == 1
    assert "bad.jpg" in result.skipped[0][1]
    only_bad = CaptionDataset.from_pairs([(str(tmp_path / "bad.jpg"), "x")], "bad")
    with pytest.raises(DataError, match="None of the 1 images"):
        evaluate_captioner(Parrot(TEXTS), only_bad, ["wer"], on_bad_image="skip")


class Choosy(Parrot):
    """Refuses some images that can be decoded, as preprocessing does with very narrow ones."""

    def encode(self, images):
        if any(image.getpixel((0, 0))[0] in (1, 3) for image in images):
            raise ImageError("it is too narrow.")
        return super().encode(images)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_an_image_that_preprocessing_refuses_is_a_bad_image_too(dataset, batch_size, tmp_path):
    with pytest.raises(ImageError, match=r"Image '1': it is too narrow\. on_bad_image='skip' goes"):
        evaluate_captioner(Choosy(TEXTS), dataset, ["wer"], batch_size=batch_size)
    result = evaluate_captioner(
        Choosy(TEXTS), dataset, ["wer"], batch_size=batch_size, on_bad_image="skip"
    )
    assert [p.image_id for p in result.predictions] == ["0", "2", "4"]
    assert result.skipped == [
        ("1", "Image '1': it is too narrow."), ("3", "Image '3': it is too narrow."),
    ]  # fmt: skip
    Evaluator(dataset, ["wer"], Decoding(), 2, "stop", tmp_path).preview(Choosy(TEXTS), count=5)
    assert list(json.loads((tmp_path / "before.json").read_text())) == ["0", "2", "4"]


def test_captions_with_odd_characters_survive_the_file(tmp_path):
    texts = ["a \ud800 b", "line\u2028separator", "next\x85line", "snow\nman", 'a "quoted" \\ dog']
    dataset = CaptionDataset.from_pairs([(grey(i), "x") for i in range(5)], "odd")
    evaluator = Evaluator(dataset, ["wer"], Decoding(), 2, "stop", tmp_path)
    evaluator(Parrot(texts))
    evaluator.keep()
    assert [p.prediction for p in read_predictions(tmp_path)] == texts


def test_the_evaluator_keeps_what_it_is_told_to_keep(dataset, tmp_path):
    evaluator = Evaluator(dataset, ["wer"], Decoding(), 2, "stop", tmp_path)
    evaluator.preview(Parrot(["?"] * 5), count=2)
    values = evaluator(Parrot(TEXTS))
    evaluator.keep()
    worse = evaluator(Parrot(["nothing"] * 5))
    assert worse["wer"] > values["wer"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == values
    kept = read_predictions(tmp_path)
    assert [p.prediction for p in kept] == TEXTS
    assert [p.before for p in kept] == ["?", None, "?", None, None]
