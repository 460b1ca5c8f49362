"""Models with random weights that never end a caption, as checkpoint folders for `bench_bulk`."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BertTokenizerFast,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    GPT2TokenizerFast,
    PreTrainedTokenizerBase,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

from captionkit.data.preprocess import Preprocessor

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
VIT_S = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}


def write_git(folder: Path) -> None:
    """A GIT with a ViT-S (patches of 16 pixels, 12 layers) and 6 text layers of the same width."""
    torch.manual_seed(0)
    vision = {**VIT_S, "num_hidden_layers": 12, "patch_size": 16, "image_size": 224}
    model = GitForCausalLM(GitConfig(**VIT_S, num_hidden_layers=6, vision_config=vision))
    with torch.no_grad():  # the end token is never the most probable
        model.output.bias[model.config.eos_token_id] = -1e4
    tokenizer = BertTokenizerFast.from_pretrained(SHARED / "tokenizers" / "bert-base-uncased")
    _write(folder, model, tokenizer)


def write_vit_gpt2(folder: Path) -> None:
    """A ViT-S with GPT-2 of 6 layers of its width, and one token more than GPT-2's to end with."""
    torch.manual_seed(0)
    encoder = ViTConfig(**VIT_S, num_hidden_layers=12)
    # a zero row of the tied embedding: its logit is 0, and of 50,257 others some are above
    sizes = {"n_embd": 384, "n_head": 6, "n_layer": 6, "vocab_size": 50_258}
    decoder = GPT2Config(**sizes, add_cross_attention=True, is_decoder=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 50_256, 50_256, 50_257
    config.decoder.bos_token_id, config.decoder.eos_token_id = 50_256, 50_257
    model = VisionEncoderDecoderModel(config)
    with torch.no_grad():
        model.decoder.transformer.wte.weight[50_257] = 0
    for name in ("decoder_start_token_id", "pad_token_id", "eos_token_id"):
        setattr(model.generation_config, name, getattr(config, name))
    tokenizer = GPT2TokenizerFast.from_pretrained(SHARED / "tokenizers" / "gpt2")
    tokenizer.add_tokens(["<end>"], special_tokens=True)
    tokenizer.pad_token = tokenizer.bos_token
    _write(folder, model, tokenizer)


def _write(folder: Path, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(224).save(folder)
