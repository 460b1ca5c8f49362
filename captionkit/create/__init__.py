"""One captioning model from an image encoder's checkpoint and a text decoder's.

Done on the tensors of the files alone, so that it needs no framework and both backends can go on
with the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from captionkit.checkpoints import move_durably, removed_unless_written
from captionkit.create.decoder import DECODERS, decoder_tensors
from captionkit.create.encoder import ENCODERS, encoder_tensors
from captionkit.create.part import Part, Tensors, normal, read_part
from captionkit.data.captions import save_tokenizer, special_ids
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError, OutputError
from captionkit.models import load_tokenizer

__all__ = ["DECODERS", "ENCODERS", "create", "joined_config"]


def create(
    encoder: Path, decoder: Path, output: Path, seed: int = 42, trust_remote_code: bool = False
) -> Path:
    """Write a vision-encoder-decoder model, its tokenizer and its image processor to `output`.

    encoder: a checkpoint folder of one of `ENCODERS`; of a whole CLIP or SigLIP the image part is
    taken. decoder: one of `DECODERS`, which gets cross-attention in every layer, initialised from
    the seed; where the widths differ a projection as well. What starts, ends and pads a caption is
    the tokenizer's.

    Raises `CheckpointError`, and `OutputError` where `output` holds files already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} holds something already. Give a new or an empty folder.")
    parts = read_part(encoder, "encoder", ENCODERS), read_part(decoder, "decoder", DECODERS)
    tokenizer = load_tokenizer(decoder, trust_remote_code)
    config = joined_config(*parts, tokenizer)
    preprocess = Preprocessor.from_checkpoint(encoder)
    _check_pixels(parts[0], preprocess)
    tensors = {f"encoder.{name}": t for name, t in encoder_tensors(parts[0], seed).items()}
    tensors |= {f"decoder.{name}": t for name, t in decoder_tensors(parts[1], seed).items()}
    tensors |= _projection(*parts, seed)

    from safetensors.numpy import save_file

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be made: {error.strerror}.") from None
    # beside, then moved: a folder without its weights would be taken for one to train from scratch
    temporary = output / ".saving"
    with removed_unless_written(temporary, "The model", in_run=False):
        temporary.mkdir()
        _write_json(temporary / "config.json", config)
        _write_json(temporary / "generation_config.json", _generation_config(config))
        save_tokenizer(tokenizer, temporary)
        preprocess.save(temporary)
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        move_durably(temporary, output)
    return output


def joined_config(encoder: Part, decoder: Part, tokenizer: Any) -> dict[str, Any]:
    """config.json of the whole model. Raises CheckpointError for words that the decoder lacks."""
    start, end, pad = special_ids(tokenizer)
    if len(tokenizer) > decoder.config.vocab_size:
        raise CheckpointError(
            f"The tokenizer in {decoder.folder} has {len(tokenizer)} tokens, and the decoder's "
            f"vocabulary {decoder.config.vocab_size}. They do not belong together."
        )
    own = {name: value for name, value in decoder.values.items() if value is not None}
    return {
        "architectures": ["VisionEncoderDecoderModel"],
        "model_type": "vision-encoder-decoder",
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,  # the decoder's own setting says it of its head
        "decoder_start_token_id": start,
        "eos_token_id": end,
        "pad_token_id": pad,
        "dtype": "float32",
        "encoder": encoder.values,
        "decoder": {
            **decoder.values,
            "is_decoder": True,
            "add_cross_attention": True,
            "bos_token_id": own.get("bos_token_id", start),
            "eos_token_id": own.get("eos_token_id", end),
            # RoBERTa's positions begin behind it, whatever the tokenizer pads with
            "pad_token_id": own.get("pad_token_id", pad),
        },
    }


def _projection(encoder: Part, decoder: Part, seed: int) -> Tensors:
    inputs, outputs = encoder.config.hidden_size, decoder.config.hidden_size
    if inputs == outputs:
        return {}
    name = "enc_to_dec_proj"
    weight = normal(name, (outputs, inputs), decoder.std, seed)
    return {f"{name}.weight": weight, f"{name}.bias": numpy.zeros(outputs, numpy.float32)}


def _check_pixels(encoder: Part, preprocess: Preprocessor) -> None:
    if ENCODERS[encoder.kind].fixed_size:
        size = encoder.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        preprocess.require_size((height, width), encoder.folder, "the encoder")


def _generation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    return {"bos_token_id": config["decoder_start_token_id"]} | {n: config[n] for n in names}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
