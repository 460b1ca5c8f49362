"""Captions that begin with given words: Flax against torch, from one folder."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from transformers import GitConfig, GitForCausalLM  # noqa: E402 (after the skip)

import captionkit  # noqa: E402
from captionkit.data.preprocess import Preprocessor  # noqa: E402
from captionkit.errors import ConfigError  # noqa: E402


@pytest.fixture(scope="module")
def git_folder(tmp_path_factory, tokenizer):
    config = GitConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "initializer_range": 0.1,
        },
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=24, bos_token_id=2, eos_token_id=3,
        pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-git")
    GitForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(32).save(folder)
    return folder


def on_both(folder):
    return [captionkit.load(folder, backend=name, device="cpu") for name in ("torch", "flax")]


@pytest.mark.parametrize(
    ("model", "settings"),
    [("git_folder", {}), ("ved_folder", {"num_beams": 3, "num_return_sequences": 2})],
)
def test_captions_with_a_prompt_are_torchs(request, pairs, model, settings):
    both = on_both(request.getfixturevalue(model))
    images = [image for image, _ in pairs[:3]]
    captions = [
        captioner.caption(
            images, prompt="blue below", max_new_tokens=5, token_probabilities=True, **settings
        )
        for captioner in both
    ]
    for theirs, ours in zip(*captions, strict=True):
        assert ours.text == theirs.text
        assert ours.text.startswith("blue below")
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)
        assert [piece for piece, _ in ours.token_probabilities] == [
            piece for piece, _ in theirs.token_probabilities
        ]
    assert captions[1] != both[1].caption(images, max_new_tokens=5, **settings)


def test_a_prompt_may_fill_all_positions_but_one(ved_folder, pairs):
    both = on_both(ved_folder)
    almost = " ".join(["blue"] * 23)
    texts = [captioner.caption(pairs[0][0], prompt=almost)[0].text for captioner in both]
    assert texts[0] == texts[1]
    with pytest.raises(ConfigError, match="nothing is left for the caption"):
        both[1].caption(pairs[0][0], prompt=f"{almost} blue")
