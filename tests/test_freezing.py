"""What presets and patterns freeze, by the names in model.safetensors."""

from __future__ import annotations

import pytest

from captionkit.errors import ConfigError
from captionkit.freezing import PRESETS, frozen_tensors, matching

VED = [
    "encoder.embeddings.cls_token", "encoder.encoder.layer.0.output.dense.weight",
    "encoder.pooler.dense.weight", "enc_to_dec_proj.weight", "decoder.transformer.wte.weight",
    "decoder.transformer.h.0.attn.c_attn.weight",
    "decoder.transformer.h.0.crossattention.c_attn.weight",
    "decoder.transformer.h.0.ln_cross_attn.weight",
]  # fmt: skip
GIT = [
    "git.embeddings.word_embeddings.weight", "git.encoder.layer.0.output.dense.weight",
    "git.image_encoder.vision_model.embeddings.class_embedding",
    "git.visual_projection.visual_projection.0.weight", "output.bias",
]  # fmt: skip
BLIP = [
    "vision_model.embeddings.class_embedding", "vision_model.encoder.layers.0.mlp.fc1.weight",
    "text_decoder.bert.encoder.layer.0.attention.self.query.weight",
    "text_decoder.bert.encoder.layer.0.crossattention.self.query.weight",
    "text_decoder.bert.encoder.layer.0.crossattention.output.LayerNorm.weight",
    "text_decoder.cls.predictions.bias",
]  # fmt: skip
MODELS = {"vision-encoder-decoder": VED, "git": GIT, "blip": BLIP}


@pytest.mark.parametrize(
    ("model_type", "preset", "trained"),
    [
        ("vision-encoder-decoder", "encoder", [3, 4, 5, 6, 7]),
        ("vision-encoder-decoder", "decoder", [0, 1, 2, 3]),
        ("vision-encoder-decoder", "all-but-cross-attention", [3, 6, 7]),
        ("git", "encoder", [0, 1, 3, 4]),
        ("git", "decoder", [2, 3]),
        ("blip", "encoder", [2, 3, 4, 5]),
        ("blip", "decoder", [0, 1]),
        ("blip", "all-but-cross-attention", [3, 4]),
    ],
)
def test_presets_mean_the_parts_of_each_family(model_type, preset, trained):
    names = MODELS[model_type]
    frozen = frozen_tensors(names, [preset], model_type)
    assert [i for i, name in enumerate(names) if name not in frozen] == trained


def test_presets_patterns_and_the_unused_add_up():
    frozen = frozen_tensors(
        VED, ["encoder", "*.wte.*"], "vision-encoder-decoder", ["encoder.pooler.*"]
    )
    assert frozen == {*VED[:3], VED[4]}
    assert frozen_tensors(VED, [], "vision-encoder-decoder", ["encoder.pooler.*"]) == {VED[2]}
    assert frozen_tensors(GIT, ["encoder", "decoder"], "git") == set(GIT) - {GIT[3]}
    # a bart-like decoder calls its cross-attention otherwise
    bart = ["decoder.model.decoder.layers.0.encoder_attn.q_proj.weight", "decoder.lm_head.weight"]
    kept = frozen_tensors(bart, ["all-but-cross-attention"], "vision-encoder-decoder")
    assert kept == {"decoder.lm_head.weight"}


def test_what_cannot_be_meant_is_explained():
    with pytest.raises(ConfigError, match=r"'encodr' does not exist; did you mean 'encoder'\?"):
        frozen_tensors(VED, ["encodr"], "vision-encoder-decoder")
    with pytest.raises(ConfigError, match=r"'encoder\.layers\.\*' matches no tensor.*cls_token"):
        frozen_tensors(VED, ["encoder.layers.*"], "vision-encoder-decoder")
    with pytest.raises(ConfigError, match="no cross-attention, its image and its text go through"):
        frozen_tensors(GIT, ["all-but-cross-attention"], "git")
    with pytest.raises(ConfigError, match="nothing to train"):
        frozen_tensors(BLIP, ["encoder", "decoder"], "blip")
    with pytest.raises(ConfigError, match=r"not known of models of type 'paligemma'"):
        frozen_tensors(["a.weight"], ["encoder"], "paligemma")


def test_only_stars_stand_for_anything():
    assert matching(["a.b", "a.c.b", "ab"], ["a.*"]) == {"a.b", "a.c.b"}
    assert matching(["a.b"], ["A.*", "b"]) == set()


def test_every_preset_is_named_in_the_help():
    from captionkit.cli.form import field_help
    from captionkit.recipe import TrainingConfig

    assert all(preset in field_help(TrainingConfig)["freeze"] for preset in PRESETS)
