"""One captioning model from an image encoder's checkpoint and a text decoder's.

Done on the tensors of the files alone, so that it needs no framework and both backends can go on
with the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data.captions import save_tokenizer
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError, OutputError
from captionkit.models import load_tokenizer, model_type
from captionkit.tensor_names import canonical, gpt2_names, vit_names
from captionkit.tensors import TensorFiles

if TYPE_CHECKING:
    import numpy

    Tensors = dict[str, numpy.ndarray]

_ENCODERS, _DECODERS = ("vit", "deit"), ("gpt2",)
_HEAD, _EMBEDDING = "lm_head.weight", "transformer.wte.weight"


def create(
    encoder: Path, decoder: Path, output: Path, seed: int = 42, trust_remote_code: bool = False
) -> Path:
    """Write a vision-encoder-decoder model, its tokenizer and its image processor to `output`.

    encoder: a checkpoint folder of ViT or DeiT. decoder: one of GPT-2, which gets cross-attention
    in every layer, initialised from the seed; where the widths differ a projection as well.
    Decoding starts from the decoder's BOS token, and captions are padded with its EOS token.

    Raises `CheckpointError`, and `OutputError` where `output` holds files already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} holds something already. Give a new or an empty folder.")
    config = joined_config(encoder, decoder)
    tokenizer = load_tokenizer(decoder, trust_remote_code)
    preprocess = Preprocessor.from_checkpoint(encoder)
    tensors = {f"encoder.{name}": t for name, t in _encoder(encoder, config, seed).items()}
    tensors |= {f"decoder.{name}": t for name, t in _decoder(decoder, config, seed).items()}
    tensors |= _projection(config, seed)

    from safetensors.numpy import save_file

    output.mkdir(parents=True, exist_ok=True)
    _write_json(output / "config.json", config)
    _write_json(output / "generation_config.json", _generation_config(config))
    save_tokenizer(tokenizer, output)
    preprocess.save(output)
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    return output


def joined_config(encoder: Path, decoder: Path) -> dict[str, Any]:
    """config.json of the whole model. Raises CheckpointError for parts that do not go together."""
    for folder, part, known in ((encoder, "encoder", _ENCODERS), (decoder, "decoder", _DECODERS)):
        if (kind := model_type(folder)) not in known:
            raise CheckpointError(
                f"{folder} is a model of type {kind!r}, which cannot be the {part} of a captioner "
                f"here. Possible: {', '.join(known)}."
            )
    encoder_config, decoder_config = _config(encoder), _config(decoder)
    # GPT-2's own, where the config is silent as configs of transformers 5 may be
    start = decoder_config.setdefault("bos_token_id", 50256)
    end = decoder_config.setdefault("eos_token_id", 50256)
    pad = end[0] if isinstance(end, list) else end
    return {
        "architectures": ["VisionEncoderDecoderModel"],
        "model_type": "vision-encoder-decoder",
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,  # the decoder's own setting says it of its head
        "decoder_start_token_id": start,
        "eos_token_id": end,
        "pad_token_id": pad,
        "dtype": "float32",
        "encoder": encoder_config,
        "decoder": decoder_config
        | {"is_decoder": True, "add_cross_attention": True, "pad_token_id": pad},
    }


def _encoder(folder: Path, config: Mapping[str, Any], seed: int) -> Tensors:
    import numpy

    part = config["encoder"]
    tensors = _canonical(folder, part["model_type"])
    width = part.get("hidden_size", 768)
    pooled = part.get("pooler_output_size") or width
    # image classifiers have no pooler; no caption depends on it, but loaders look for it
    tensors.setdefault("pooler.dense.weight", _normal("pooler", (pooled, width), _std(part), seed))
    tensors.setdefault("pooler.dense.bias", numpy.zeros(pooled, numpy.float32))
    _check(folder, tensors, vit_names(part))
    return tensors


def _decoder(folder: Path, config: Mapping[str, Any], seed: int) -> Tensors:
    import numpy

    part = config["decoder"]
    tensors = _canonical(folder, "gpt2")
    if part.get("tie_word_embeddings", True) and _HEAD in tensors:
        head = tensors.pop(_HEAD)
        if not numpy.array_equal(head, tensors.setdefault(_EMBEDDING, head)):
            raise CheckpointError(
                f"In {folder} {_HEAD} differs from {_EMBEDDING}, but its config says that they are "
                'one matrix. Set "tie_word_embeddings": false in config.json if both are meant.'
            )
    for layer in range(part.get("n_layer", 12)):
        fresh = _cross_attention(f"transformer.h.{layer}.", part, seed)
        tensors = {**fresh, **tensors}  # a decoder that has cross-attention keeps its own
    _check(folder, tensors, gpt2_names(part))
    return tensors


def _cross_attention(layer: str, config: Mapping[str, Any], seed: int) -> Tensors:
    """As transformers initialises it: what is added to the residual stream starts smaller."""
    import numpy

    width, std = config.get("n_embd", 768), _std(config)
    residual_std = std / math.sqrt(2 * config.get("n_layer", 12))
    kernels = {"q_attn": (width, std), "c_attn": (2 * width, std), "c_proj": (width, residual_std)}
    tensors = {
        f"{layer}ln_cross_attn.weight": numpy.ones(width, numpy.float32),
        f"{layer}ln_cross_attn.bias": numpy.zeros(width, numpy.float32),
    }
    for name, (outputs, kernel_std) in kernels.items():
        full = f"{layer}crossattention.{name}"
        tensors[f"{full}.weight"] = _normal(full, (width, outputs), kernel_std, seed)
        tensors[f"{full}.bias"] = numpy.zeros(outputs, numpy.float32)
    return tensors


def _projection(config: Mapping[str, Any], seed: int) -> Tensors:
    import numpy

    inputs = config["encoder"].get("hidden_size", 768)
    outputs = config["decoder"].get("n_embd", 768)
    if inputs == outputs:
        return {}
    name = "enc_to_dec_proj"
    weight = _normal(name, (outputs, inputs), _std(config["decoder"]), seed)
    return {f"{name}.weight": weight, f"{name}.bias": numpy.zeros(outputs, numpy.float32)}


def _canonical(folder: Path, kind: str) -> Tensors:
    """The tensors of a part as float32, under the names that the whole model has them by."""
    import numpy

    files, tensors = TensorFiles(folder), {}
    for name in files:
        known = canonical(name, kind)
        if known is not None:
            tensors[known] = numpy.ascontiguousarray(files[name], numpy.float32)
    return tensors


def _check(folder: Path, tensors: Mapping[str, Any], expected: Iterable[str]) -> None:
    expected = set(expected)
    missing, unknown = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
    if missing or unknown:
        raise CheckpointError(
            f"The weights in {folder} do not fit its config.\n"
            f"  missing from the file: {', '.join(missing[:6]) or 'none'}\n"
            f"  unknown to the model: {', '.join(unknown[:6]) or 'none'}\n"
            "Check that config.json belongs to these weights."
        )


def _normal(name: str, shape: tuple[int, ...], std: float, seed: int) -> numpy.ndarray:
    import numpy

    stream = numpy.random.default_rng([seed, *name.encode()])
    return stream.standard_normal(shape, numpy.float32) * numpy.float32(std)


def _std(config: Mapping[str, Any]) -> float:
    return config.get("initializer_range", 0.02)


def _config(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = ("architectures", "transformers_version", "_name_or_path", "torch_dtype", "dtype")
    return {name: value for name, value in values.items() if name not in own}


def _generation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    return {"bos_token_id": config["decoder_start_token_id"]} | {n: config[n] for n in names}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
