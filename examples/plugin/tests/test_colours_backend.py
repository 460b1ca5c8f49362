"""What is this backend's own: its gradients, its refusals, and what it learns of flags."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
from captionkit_colours.captioner import ColoursCaptioner
from captionkit_colours.model import Config, Model, _initial

import captionkit
from captionkit.data.captions import build_word_tokenizer, decoder_pairs
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError, ConfigError, TrainingInterrupted

# captionkit warns of captions that do not fit their images, as those of so short a run
UNLEARNED = pytest.mark.filterwarnings("ignore:.*captions:UserWarning")


@pytest.fixture
def model():
    config = Config(hidden_size=5, grid=2, positions=6)
    tokenizer = build_word_tokenizer(["red above blue", "blue above red"])
    tensors = _initial(config, len(tokenizer), seed=1)
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    return Model(config, tensors, tokenizer, Preprocessor.square(32))


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "colours.json"
    file.write_text(json.dumps({"model_type": "colours"}))
    return str(file)


def test_gradients_are_those_of_finite_differences(model):
    draw = np.random.default_rng(0)
    colours = draw.normal(size=(3, 12))
    ids, targets = draw.integers(0, 7, (2, 3, 4))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], bool)
    _, gradients = model.loss_and_gradients(colours, ids, targets, mask)
    assert gradients.keys() == model.tensors.keys()
    for name, tensor in model.tensors.items():
        for place in {tuple(draw.integers(0, size) for size in tensor.shape) for _ in range(12)}:
            found, value = [], tensor[place]
            for shift in (1e-5, -1e-5):
                tensor[place] = value + shift
                found.append(model.loss_and_gradients(colours, ids, targets, mask)[0])
            tensor[place] = value
            numeric = (found[0] - found[1]) / 2e-5
            assert gradients[name][place] == pytest.approx(numeric, abs=1e-7), (name, place)


def test_beams_find_the_most_probable_of_all_captions(model):
    """As many beams as there are beginnings: every caption of up to three tokens is looked at."""
    captioner = ColoursCaptioner(model)
    image = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    tokens, end = len(model.tokenizer), model.end
    others = [token for token in range(tokens) if token != end]
    whole = [(a, b, c) for a in others for b in others for c in range(tokens)]
    every = [(end,), *((a, end) for a in others), *whole]
    colours = model.colours(model.preprocess.read(image))

    def log_probability(ids):
        inputs, _ = decoder_pairs([*ids, end], model.start)
        logits = model.logits(colours[None], np.array([inputs]))[0]
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return sum(log_probs[i, token] for i, token in enumerate(ids))

    best = max(every, key=lambda ids: log_probability(ids) / len(ids))
    found = captioner.caption([image], num_beams=len(others) ** 2, max_new_tokens=3)[0]
    assert found.text == model.tokenizer.decode(best, skip_special_tokens=True)
    assert found.score == pytest.approx(log_probability(best) / len(best))


@pytest.mark.parametrize(
    "setting",
    [{"precision": "bf16"}, {"optimizer": "adafactor"}, {"label_smoothing": 0.1},
     {"do_sample": True}, {"colour_noise": -1.0}],
)  # fmt: skip
def test_what_it_would_not_honour_is_refused_before_anything_is_written(
    config_file, tmp_path, setting
):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        captionkit.finetune(
            model=config_file, dataset="flags", output_dir=tmp_path / "run", **setting
        )
    assert not (tmp_path / "run").exists()


def test_a_config_with_an_unknown_value_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "colours", "layers": 2}))
    with pytest.raises(CheckpointError, match=r"layers=2"):
        Config.of(tmp_path)


def test_it_learns_what_flags_look_like(config_file, tmp_path):
    """Flags that it has not seen, scored with the metric of this distribution."""
    result = captionkit.finetune(
        model=config_file, dataset="flags", output_dir=tmp_path / "run", epochs=25, batch_size=30,
        learning_rate=2e-2, metrics=["colour_recall", "wer"], colour_noise=0.05, eval_steps=0,
    )  # fmt: skip
    assert result.metrics["colour_recall"] > 0.9
    assert "colours" in (result.output_dir / "captionkit" / "recipe.yaml").read_text()
    assert captionkit.load(result.output_dir).facts["backend"] == "colours"


@UNLEARNED
def test_a_run_ends_with_the_weights_of_its_best_evaluation(config_file, tmp_path):
    """The longest captions are called the best: those of a model that has not learned to end."""
    result = captionkit.finetune(
        model=config_file, dataset="flags", output_dir=tmp_path / "run", max_steps=9, eval_steps=3,
        batch_size=30, learning_rate=2e-2, metrics=["length"], best_metric="length",
    )  # fmt: skip
    lengths = {row["step"]: row["eval_length"] for row in result.history if "eval_length" in row}
    best = max(lengths, key=lengths.get)
    assert best != 9, lengths
    saved = result.output_dir / f"checkpoint-{best}" / "model.safetensors"
    assert saved.read_bytes() == (result.output_dir / "model.safetensors").read_bytes()
    assert result.metrics["length"] == lengths[best]


@UNLEARNED
def test_a_run_that_is_stopped_goes_on_to_the_same_weights(config_file, tmp_path, monkeypatch):
    settings = {
        "model": config_file, "dataset": "flags", "max_steps": 6, "batch_size": 30,
        "eval_steps": 0, "colour_noise": 0.1, "metrics": ["wer"],
    }  # fmt: skip
    whole = captionkit.finetune(output_dir=tmp_path / "whole", **settings)
    asked = iter([False, False, True, True, True])
    with monkeypatch.context() as patch:
        patch.setattr(
            "captionkit.api.stop_requested_by_signal", lambda: nullcontext(lambda: next(asked))
        )
        with pytest.raises(TrainingInterrupted, match="step 3"):
            captionkit.finetune(output_dir=tmp_path / "stopped", **settings)
    again = captionkit.finetune(output_dir=tmp_path / "stopped", resume=True)
    for name in ("model.safetensors", "config.json"):
        assert (again.output_dir / name).read_bytes() == (whole.output_dir / name).read_bytes()
