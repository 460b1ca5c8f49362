"""The text decoder of a model to be made: its tensors, and fresh ones that attend to the image."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy

from captionkit.create.part import Part, Tensors, check_layers, normal, read_tensors
from captionkit.errors import CheckpointError


@dataclass(frozen=True)
class Decoder:
    """A type of text decoder that transformers can give cross-attention.

    layers: how the names of its layers begin. cross_attention: that of the layer of a name.
    embedding, head: the two names of one matrix where input and output are tied.
    output: the layers between the last one and the head, which a bare model lacks.
    """

    layers: str
    cross_attention: Callable[[Part, str, int], Tensors]
    embedding: str
    head: str
    output: Callable[[Part, int], Tensors]


def decoder_tensors(part: Part, seed: int) -> Tensors:
    """The decoder's tensors by their names in it. Raises CheckpointError."""
    kind = DECODERS[part.kind]
    tensors = read_tensors(part)
    tied = getattr(part.config, "tie_word_embeddings", True)
    if tied and kind.head in tensors:
        head = tensors.pop(kind.head)
        if not numpy.array_equal(head, tensors.setdefault(kind.embedding, head)):
            raise CheckpointError(
                f"In {part.folder} {kind.head} differs from {kind.embedding}, but its config says "
                'that they are one matrix. Set "tie_word_embeddings": false in config.json if both '
                "are meant."
            )
    if kind.embedding not in tensors:
        raise CheckpointError(
            f"{part.folder} has no {kind.embedding}: it holds no language model of type "
            f"{part.kind!r}."
        )
    depth = part.config.num_hidden_layers
    check_layers(part, tensors, {kind.layers: depth})
    fresh: Tensors = {}
    for layer in range(depth):
        fresh |= kind.cross_attention(part, f"{kind.layers}.{layer}.", seed)
    output = kind.output(part, seed)
    if not tied:
        output[kind.head] = tensors[kind.embedding]
    if lacking := sorted(set(output) - set(tensors)):
        warnings.warn(
            f"{part.folder} has no output layers, as a checkpoint of a bare model has none: "
            f"{', '.join(lacking)} begin anew.",
            stacklevel=2,
        )
    # a decoder that has cross-attention keeps its own
    return {**fresh, **output, **tensors}


def _of_gpt2(part: Part, layer: str, seed: int) -> Tensors:
    """As transformers initialises it: what is added to the residual stream starts smaller."""
    width, std = part.config.hidden_size, part.std
    residual = std / math.sqrt(2 * part.config.num_hidden_layers)
    kernels = {"q_attn": (width, std), "c_attn": (2 * width, std), "c_proj": (width, residual)}
    tensors = _norm(f"{layer}ln_cross_attn", width)
    for name, (outputs, kernel_std) in kernels.items():
        # GPT-2's kernels are (inputs, outputs)
        tensors |= _linear(f"{layer}crossattention.{name}", (width, outputs), outputs, kernel_std,
                           seed)  # fmt: skip
    return tensors


def _of_bert(part: Part, layer: str, seed: int) -> Tensors:
    width, attention = part.config.hidden_size, f"{layer}crossattention."
    tensors = _norm(f"{attention}output.LayerNorm", width)
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        tensors |= _linear(f"{attention}{name}", (width, width), width, part.std, seed)
    return tensors


def _bert_output(part: Part, seed: int) -> Tensors:
    width, transform = part.config.hidden_size, "cls.predictions.transform."
    return {
        **_linear(f"{transform}dense", (width, width), width, part.std, seed),
        **_norm(f"{transform}LayerNorm", width),
        "cls.predictions.bias": numpy.zeros(part.config.vocab_size, numpy.float32),
    }


def _roberta_output(part: Part, seed: int) -> Tensors:
    width = part.config.hidden_size
    return {
        **_linear("lm_head.dense", (width, width), width, part.std, seed),
        **_norm("lm_head.layer_norm", width),
        "lm_head.bias": numpy.zeros(part.config.vocab_size, numpy.float32),
    }


def _linear(name: str, shape: tuple[int, int], outputs: int, std: float, seed: int) -> Tensors:
    return {
        f"{name}.weight": normal(name, shape, std, seed),
        f"{name}.bias": numpy.zeros(outputs, numpy.float32),
    }


def _norm(name: str, width: int) -> Tensors:
    ones, zeros = numpy.ones(width, numpy.float32), numpy.zeros(width, numpy.float32)
    return {f"{name}.weight": ones, f"{name}.bias": zeros}


_ROBERTA = Decoder(
    "roberta.encoder.layer", _of_bert, "roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.weight", _roberta_output,
)  # fmt: skip
DECODERS = {
    "gpt2": Decoder(
        "transformer.h", _of_gpt2, "transformer.wte.weight", "lm_head.weight",
        lambda part, seed: {},
    ),
    "bert": Decoder(
        "bert.encoder.layer", _of_bert, "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.weight", _bert_output,
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
}  # fmt: skip
