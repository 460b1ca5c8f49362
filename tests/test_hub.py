"""Model cards, and uploads that go to a stand-in for the hub."""

from __future__ import annotations

import huggingface_hub
import pytest

from captionkit import hub
from captionkit.errors import HubError
from captionkit.evaluation import Prediction
from captionkit.model_card import is_untouched_card, model_card
from captionkit.recipe import Recipe


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "git-tests"
    folder.mkdir()
    return folder


RECIPE = Recipe(model="microsoft/git-base", hub_model_id="me/my-captioner")


def test_the_card_has_metrics_and_samples_as_plain_text(run):
    predictions = [
        Prediction("1", "a | b <script>", -0.1, ("[a](x)",), {"wer": 0.5}),
        Prediction("2", "two\nlines", -0.1, (), {}),
    ]
    card = model_card(run, RECIPE, {"wer": 0.2134, "rougeL": 81.5}, predictions)
    assert "base_model: microsoft/git-base" in card
    assert 'captionkit.load("me/my-captioner")' in card
    assert "| WER | 0.2134 |" in card
    assert "| ROUGE-L | 81.5 |" in card
    assert r"| 1 | a \| b \<script\> | \[a\](x) |" in card
    assert "| 2 | two lines |  |" in card


def test_only_a_card_that_nobody_edited_is_ours(run):
    card = model_card(run, RECIPE, {}, [])
    assert "## Evaluation" not in card
    assert is_untouched_card(card)
    assert not is_untouched_card(card.replace("An image-captioning", "My image-captioning"))
    assert not is_untouched_card("# About captionkit")


class StandIn:
    calls: list = []  # noqa: RUF012 (one test reads it)

    def create_repo(self, repo_id, exist_ok):
        self.calls.append(("create", repo_id, exist_ok))
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, **settings):
        self.calls.append(("upload", settings))


def test_push_uploads_the_folder_without_checkpoints(run, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", StandIn)
    address = hub.push(run, RECIPE)
    assert address == "https://huggingface.co/me/my-captioner"
    (_, settings) = StandIn.calls[-1]
    assert settings["folder_path"] == run
    assert settings["repo_id"] == "me/my-captioner"
    names = ["model.safetensors", "checkpoint-5/model.safetensors", "captionkit/report.html",
             "damaged-checkpoint-10/optimizer.pt", ".earlier/model.safetensors"]  # fmt: skip
    left = huggingface_hub.utils.filter_repo_objects(
        names, ignore_patterns=settings["ignore_patterns"]
    )
    assert list(left) == ["model.safetensors", "captionkit/report.html"]


def test_a_failed_upload_says_where_the_model_is(run, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route to host\nand a long trace")

    monkeypatch.setattr(StandIn, "upload_folder", fail)
    monkeypatch.setattr(huggingface_hub, "HfApi", StandIn)
    with pytest.raises(HubError, match=r"is safe in .*git-tests.*no route to host\)") as error:
        hub.push(run, RECIPE)
    assert "long trace" not in str(error.value)


def test_a_missing_login_is_found_before_the_training():
    with pytest.raises(HubError, match="hf auth login"):
        hub.check_login(RECIPE)
