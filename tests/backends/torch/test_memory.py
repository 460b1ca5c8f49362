"""What frozen tensors, recomputed activations and Adafactor cost, counted."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    GitForCausalLM,
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

import captionkit
from captionkit.backends.torch.families import family_of
from captionkit.backends.torch.train import checkpoint_activations, freeze
from captionkit.backends.torch.weights import named_as_saved
from captionkit.data.preprocess import Preprocessor

PART = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2}  # fmt: skip
PIXELS = {"image_size": 32, "patch_size": 8}
TEXT = {"vocab_size": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 24}  # fmt: skip


def new_model(kind, git_config):
    torch.manual_seed(0)
    if kind == "git":
        return GitForCausalLM(git_config)
    if kind == "blip":
        text = {**PART, **TEXT, "encoder_hidden_size": 32, "bos_token_id": 2, "sep_token_id": 3}
        return BlipForConditionalGeneration(
            BlipConfig(text_config=text, vision_config={**PART, **PIXELS})
        )
    decoder = GPT2Config(
        n_embd=24, n_layer=2, n_head=2, n_positions=24, vocab_size=40, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**PART, **PIXELS), decoder
    )
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    return VisionEncoderDecoderModel(config)


def logits(model, hidden_states=None):
    draw = torch.Generator().manual_seed(1)
    pixel_values = torch.randn(2, 3, 32, 32, generator=draw)
    ids = torch.randint(4, 14, (2, 6), generator=draw)
    family = family_of(model.config.model_type)
    return family.logits(model, pixel_values, ids, torch.ones_like(ids), hidden_states)


def bytes_kept(forward):
    """Of the distinct tensors that autograd keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    return sum(kept.values()), output


def operations(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


# ---- freezing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["git", "blip", "vision-encoder-decoder"])
@pytest.mark.parametrize("preset", ["encoder", "decoder", "all-but-cross-attention"])
def test_frozen_tensors_get_no_gradient_and_all_others_do(kind, preset, git_config):
    if (kind, preset) == ("git", "all-but-cross-attention"):
        pytest.skip("GIT has no cross-attention, which is an error")
    model = new_model(kind, git_config).train()
    freeze(model, [preset])
    logits(model).square().sum().backward()
    reached = {name for name, p in named_as_saved(model).items() if p.grad is not None}
    inside = {
        "git": lambda n: n.startswith("git.image_encoder."),
        "blip": lambda n: n.startswith("vision_model."),
        "vision-encoder-decoder": lambda n: n.startswith("encoder.") and ".pooler." not in n,
    }[kind]
    between = lambda n: n.startswith(("git.visual_projection.", "enc_to_dec_proj."))  # noqa: E731
    cross = lambda n: "cross" in n or between(n)  # noqa: E731
    expected = {
        "encoder": lambda n: not inside(n) and ".pooler." not in n,
        "decoder": lambda n: inside(n) or between(n),
        "all-but-cross-attention": cross,
    }[preset]
    assert reached == {name for name in named_as_saved(model) if expected(name)}


@pytest.mark.parametrize("kind", ["blip", "vision-encoder-decoder"])
def test_a_frozen_encoder_keeps_nothing_and_costs_its_forward_pass_alone(kind, git_config):
    model = new_model(kind, git_config).train()
    whole, _ = bytes_kept(lambda: logits(model))
    freeze(model, ["encoder"])
    frozen, _ = bytes_kept(lambda: logits(model))
    family, pixel_values = family_of(kind), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        hidden_states = family.encode(model, pixel_values)
    # as much as the decoder alone keeps, of states that came from nowhere, and these
    alone, _ = bytes_kept(lambda: logits(model, hidden_states))
    assert frozen == pytest.approx(alone, abs=hidden_states.nbytes)
    assert frozen < 0.7 * whole

    encoding = operations(lambda: family.encode(model, pixel_values))
    decoding = operations(lambda: logits(model, hidden_states).sum().backward())
    assert operations(lambda: logits(model).sum().backward()) == encoding + decoding


@pytest.mark.parametrize("kind", ["blip", "vision-encoder-decoder"])
def test_the_optimizer_knows_only_what_is_trained(kind, git_config, pairs, tokenizer, tmp_path):
    folder = tmp_path / "model"
    new_model(kind, git_config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(32).save(folder)
    result = run(folder, pairs, tmp_path / "run", max_steps=1, save_steps=1, freeze=["encoder"])
    state = torch.load(result.output_dir / "checkpoint-1/optimizer.pt", weights_only=True)
    names = set(load_file(folder / "model.safetensors"))
    trained = {n for n in names if not n.startswith(("encoder.", "vision_model."))}
    assert len(state["state"]) == len(trained)
    info = json.loads((result.output_dir / "captionkit/run.json").read_text())
    numbers = sum(s["exp_avg"].numel() for s in state["state"].values())
    assert numbers == info["trainable"] < info["parameters"]


# ---- recomputed activations ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["git", "blip", "vision-encoder-decoder"])
def test_checkpointing_gives_the_same_gradients_from_less_memory(kind, git_config):
    plain, lean = new_model(kind, git_config).train(), new_model(kind, git_config).train()
    checkpoint_activations(lean)
    kept = []
    for model in (plain, lean):
        bytes_, output = bytes_kept(lambda model=model: logits(model))
        output.square().sum().backward()
        kept.append(bytes_)
    assert kept[1] < 0.6 * kept[0]
    ours = dict(lean.named_parameters())
    for name, parameter in plain.named_parameters():
        if parameter.grad is None:
            assert ours[name].grad is None
        else:
            torch.testing.assert_close(ours[name].grad, parameter.grad)


# ---- Adafactor -----------------------------------------------------------------------------------


def run(folder, pairs, output_dir, **settings):
    return captionkit.finetune(
        model=str(folder), dataset=pairs, output_dir=str(output_dir), backend="torch",
        **{
            "device": "cpu", "precision": "fp32", "batch_size": 4, "test_size": 0,
            "max_new_tokens": 6, "logging_steps": 1, "learning_rate": 1e-3, "eval_steps": 0,
            **settings,
        },
    )  # fmt: skip


def test_adafactor_keeps_rows_and_columns_and_resumes_exactly(git_folder, pairs, tmp_path):
    settings = {"optimizer": "adafactor", "max_steps": 4, "save_steps": 2, "weight_decay": 0.1}
    whole = run(git_folder, pairs, tmp_path / "whole", **settings)
    saved = torch.load(whole.output_dir / "checkpoint-4/optimizer.pt", weights_only=True)
    group = saved["param_groups"][0]
    assert not group["scale_parameter"]
    assert not group["relative_step"]
    kept = sum(
        value.numel()
        for state in saved["state"].values()
        for name, value in state.items()
        if name.startswith("exp_avg")
    )
    tensors = load_file(git_folder / "model.safetensors").values()
    rows_and_columns = sum(
        t.numel() // t.shape[-1] + t.numel() // t.shape[-2] if t.ndim > 1 else t.numel()
        for t in tensors
    )
    assert kept == rows_and_columns
    assert kept < 0.2 * sum(t.numel() for t in tensors)

    import shutil

    shutil.copytree(whole.output_dir, tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoint-4")
    again = run(git_folder, pairs, tmp_path / "again", resume=True, **settings)
    first, second = (
        load_file(result.output_dir / "model.safetensors") for result in (whole, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = [[row["loss"] for row in result.history] for result in (whole, again)]
    assert losses[0] == losses[1]
