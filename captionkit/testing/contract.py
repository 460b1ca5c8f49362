"""The contract of a backend and a model family: train, resume, save, load, caption, score, err."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from captionkit.testing.pictures import two_colour_pictures

STEPS = 80


class BackendContract:
    """Subclass, name a backend and a tiny model, and pytest runs every test below on the pair.

    backend: its registered name. model: the values of a `config.json`, so small that 80 updates
    take seconds; it is trained from random weights at learning_rate. settings: further keywords of
    `captionkit.finetune`, of the backend's own options too. freeze: what `freeze` is tested with.
    """

    backend: ClassVar[str]
    model: ClassVar[Mapping[str, Any]]
    learning_rate: ClassVar[float] = 2e-3
    settings: ClassVar[Mapping[str, Any]] = {}
    freeze: ClassVar[tuple[str, ...]] = ("encoder",)

    # ---- what the tests share ------------------------------------------------------------------

    @pytest.fixture(scope="class")
    @classmethod
    def pairs(cls) -> list[tuple[Any, str]]:
        return two_colour_pictures()

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, pairs: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
        """A run that has seen every picture 40 times, validated on the same pictures."""
        folder = tmp_path_factory.mktemp(f"contract-{cls.backend}")
        config = folder / "tiny.json"
        config.write_text(json.dumps(dict(cls.model)))
        return cls.finetune(str(config), pairs, folder / "run", learning_rate=cls.learning_rate)

    @pytest.fixture(scope="class")
    @classmethod
    def captioner(cls, run: Any) -> Any:
        return run.captioner

    @pytest.fixture(scope="class")
    @classmethod
    def images(cls, pairs: Any) -> list[Any]:
        return [image for image, _ in pairs]

    @classmethod
    def finetune(cls, model: str, pairs: Any, output_dir: Path, **settings: Any) -> Any:
        """A short run on the pictures; the defaults are those of the run above."""
        import datasets

        import captionkit

        columns = {"image": [i for i, _ in pairs], "caption": [c for _, c in pairs]}
        data = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
        given: dict[str, Any] = {
            "max_steps": STEPS, "batch_size": 4, "eval_batch_size": 8, "eval_steps": STEPS // 2,
            "warmup_steps": 8, "logging_steps": 10, "metrics": ["wer"], "max_new_tokens": 12,
            "precision": "fp32", "load_best": False, **cls.settings, **settings,
        }  # fmt: skip
        return captionkit.finetune(
            model=model, backend=cls.backend, output_dir=str(output_dir),
            dataset=datasets.DatasetDict(train=data, validation=data), **given,
        )  # fmt: skip

    # ---- training ------------------------------------------------------------------------------

    def test_it_memorises(self, run: Any, captioner: Any, pairs: Any, images: Any) -> None:
        assert run.metrics["wer"] == 0.0
        assert [caption.text for caption in captioner.caption(images)] == [c for _, c in pairs]
        losses = [row["loss"] for row in run.history if "loss" in row]
        assert len(losses) == STEPS // 10
        assert losses[-1] < 0.2 * losses[0]

    def test_it_writes_a_hugging_face_folder(self, run: Any) -> None:
        from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer

        kind = self.model["model_type"]
        assert json.loads((run.output_dir / "config.json").read_text())["model_type"] == kind
        if kind in CONFIG_MAPPING:  # a plugin may have a model of its own
            assert AutoConfig.from_pretrained(run.output_dir).model_type == kind
        AutoTokenizer.from_pretrained(run.output_dir)
        names = {path.name for path in run.output_dir.iterdir()}
        assert {
            "model.safetensors", "preprocessor_config.json", "generation_config.json"
        } <= names  # fmt: skip
        assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".tmp"))]
        inside = {path.name for path in (run.output_dir / "captionkit").iterdir()}
        assert {"recipe.yaml", "history.jsonl", "metrics.json", "report.html"} <= inside

    def test_a_resumed_run_ends_where_the_whole_one_does(
        self, run: Any, pairs: Any, tmp_path: Path
    ) -> None:
        folder = tmp_path / "run"
        shutil.copytree(run.output_dir, folder)
        shutil.rmtree(folder / f"checkpoint-{STEPS}")
        (folder / "model.safetensors").unlink()
        again = self.finetune(
            str(run.output_dir.parent / "tiny.json"), pairs, folder,
            learning_rate=self.learning_rate, resume=True,
        )  # fmt: skip
        assert again.output_dir == folder
        weights = "model.safetensors"
        assert (folder / weights).read_bytes() == (run.output_dir / weights).read_bytes()
        assert _without_speed(again.history) == _without_speed(run.history)

    def test_frozen_tensors_stay_as_they_are(self, run: Any, pairs: Any, tmp_path: Path) -> None:
        from safetensors.numpy import load_file

        short = {"max_steps": 2, "warmup_steps": 0, "learning_rate": 1e-3, "eval_steps": 0}
        moved = self.finetune(
            str(run.output_dir), pairs, tmp_path / "run", freeze=self.freeze, **short
        )
        before = load_file(run.output_dir / "model.safetensors")
        after = load_file(moved.output_dir / "model.safetensors")
        same = {name for name in before if (before[name] == after[name]).all()}
        assert same
        assert same != set(before)
        start = json.loads((moved.output_dir / "captionkit" / "run.json").read_text())
        assert start["trainable"] < start["parameters"]

    def test_a_divergence_is_named(self, run: Any, pairs: Any, tmp_path: Path) -> None:
        from captionkit.errors import DivergedError

        with pytest.raises(DivergedError, match=r"learning.rate"):
            self.finetune(
                str(run.output_dir), pairs, tmp_path / "run", learning_rate=1e30, warmup_steps=0,
                max_steps=20, logging_steps=1, schedule="constant", eval_steps=0,
            )  # fmt: skip

    # ---- captions and their scores -------------------------------------------------------------

    def test_what_was_saved_is_what_was_evaluated(
        self, run: Any, captioner: Any, images: Any
    ) -> None:
        lines = (run.output_dir / "captionkit" / "predictions.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        captions = captioner.caption(images)
        assert [row["prediction"] for row in rows] == [caption.text for caption in captions]
        scores = [caption.score for caption in captions]
        assert [row["score"] for row in rows] == pytest.approx(scores, abs=1e-4)

    def test_other_backends_say_the_same(self, run: Any, captioner: Any, images: Any) -> None:
        import captionkit

        others = [
            name for name in _ready_backends(self.model["model_type"]) if name != self.backend
        ]
        if not others:
            pytest.skip("no other backend that runs this model is installed")
        ours = captioner.caption(images, num_beams=3)
        for name in others:
            theirs = captionkit.load(run.output_dir, backend=name).caption(images, num_beams=3)
            assert [c.text for c in theirs] == [c.text for c in ours]
            assert [c.score for c in theirs] == pytest.approx([c.score for c in ours], abs=1e-4)

    def test_captions_do_not_depend_on_company(self, captioner: Any, images: Any) -> None:
        whole = captioner.caption(images)
        turned = captioner.caption(images[::-1], batch_size=3)[::-1]
        assert [c.text for c in turned] == [c.text for c in whole]
        assert [c.score for c in turned] == pytest.approx([c.score for c in whole], abs=1e-5)

    def test_several_captions_come_best_first(self, captioner: Any, images: Any) -> None:
        found = captioner.caption(images[:2], num_beams=4, num_return_sequences=3)
        assert len(found) == 6
        for three in (found[:3], found[3:]):
            assert len({caption.text for caption in three}) == 3
        assert found[0].text == captioner.caption(images[0], num_beams=4)[0].text

    def test_loss_and_score_are_two_views_of_one_probability(
        self, captioner: Any, images: Any
    ) -> None:
        """A generated caption, ended by its end token, taught back to the model."""
        for image, caption in zip(images, captioner.caption(images), strict=True):
            total, tokens = captioner.loss([image], [caption.text])
            assert total == pytest.approx(-caption.score * tokens, abs=2e-3)

    def test_loss_is_a_sum_over_tokens(self, captioner: Any, pairs: Any) -> None:
        alone = [captioner.loss([image], [caption]) for image, caption in pairs]
        total, tokens = captioner.loss([i for i, _ in pairs], [c for _, c in pairs])
        assert tokens == sum(count for _, count in alone)
        assert total == pytest.approx(sum(value for value, _ in alone), rel=1e-4, abs=1e-4)
        wrong, _ = captioner.loss([pairs[0][0]], ["grey grey grey"])
        assert wrong > alone[0][0]

    def test_token_probabilities_multiply_to_the_score(self, captioner: Any, images: Any) -> None:
        import math

        for caption in captioner.caption(images, token_probabilities=True):
            logs = [math.log(probability) for _, probability in caption.token_probabilities]
            assert sum(logs) / len(logs) == pytest.approx(caption.score, abs=1e-4)

    # ---- errors --------------------------------------------------------------------------------

    def test_wrong_input_is_an_error_of_ours(self, captioner: Any, tmp_path: Path) -> None:
        from captionkit.errors import ConfigError, ImageError

        (tmp_path / "broken.jpg").write_bytes(b"not an image")
        with pytest.raises(ImageError, match=r"broken\.jpg"):
            captioner.caption(tmp_path / "broken.jpg")
        with pytest.raises(ConfigError, match="num_beams"):
            captioner.caption([], num_beems=2)

    def test_missing_and_unknown_tensors_are_named(self, run: Any, tmp_path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        import captionkit
        from captionkit.errors import CheckpointError

        for path in run.output_dir.iterdir():
            if path.is_file():
                shutil.copyfile(path, tmp_path / path.name)
        tensors = load_file(run.output_dir / "model.safetensors")
        name = max(tensors, key=lambda name: tensors[name].size)
        moved = {("of_somebody_else" if n == name else n): t for n, t in tensors.items()}
        save_file(moved, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError) as caught:
            captionkit.load(tmp_path, backend=self.backend)
        assert name in str(caught.value)
        assert "of_somebody_else" in str(caught.value)


def _without_speed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


def _ready_backends(model_type: str) -> list[str]:
    from captionkit import registry

    names = [listed.name for listed in registry.list_backends() if listed.ready]
    return [name for name in names if model_type in registry.get_backend(name).model_types]
