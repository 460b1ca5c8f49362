"""Which tensors of a model are not trained, by the names that they have in model.safetensors."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from captionkit.errors import ConfigError
from captionkit.settings import nearest

PRESETS = ("encoder", "decoder", "all-but-cross-attention")


@dataclass(frozen=True)
class _Parts:
    """Patterns of a model's parts. What is in none of them is frozen by no part's name.

    cross_attention: all that brings the image into the text layers; nothing where image and text
    go through the same layers.
    """

    encoder: tuple[str, ...]
    decoder: tuple[str, ...]
    cross_attention: tuple[str, ...] = ()


_PARTS = {
    "git": _Parts(
        encoder=("git.image_encoder.*",),
        decoder=("git.embeddings.*", "git.encoder.*", "output.*"),
    ),
    "blip": _Parts(
        encoder=("vision_model.*",),
        decoder=("text_decoder.*",),
        cross_attention=("text_decoder.*.crossattention.*",),
    ),
    "vision-encoder-decoder": _Parts(
        encoder=("encoder.*",),
        decoder=("decoder.*",),
        cross_attention=(
            "decoder.*.crossattention.*", "decoder.*.ln_cross_attn.*",
            "decoder.*.encoder_attn.*", "decoder.*.encoder_attn_layer_norm.*",  # as BART has it
            "enc_to_dec_proj.*",
        ),
    ),
}  # fmt: skip


def frozen_tensors(
    names: Sequence[str], freeze: Iterable[str], model_type: str, unused: Iterable[str] = ()
) -> set[str]:
    """Those of `names` that are not trained.

    freeze: the recipe's patterns and presets. unused: patterns of tensors that no caption depends
    on. Raises ConfigError for a pattern that matches no tensor, and where nothing is left to train.
    """
    frozen: set[str] = set()
    for pattern in freeze:
        if pattern in PRESETS:
            matched = _preset(pattern, names, model_type)
        else:
            matched = matching(names, [pattern])
        if not matched:
            raise ConfigError(_no_match(pattern, names))
        frozen |= matched
    frozen |= matching(names, unused)
    if len(frozen) == len(set(names)):
        raise ConfigError("freeze leaves nothing to train. Use fewer patterns.")
    return frozen


def matching(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """The names that match any of the patterns, in which `*` stands for anything."""
    patterns = list(patterns)
    return {name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)}


def _preset(preset: str, names: Sequence[str], model_type: str) -> set[str]:
    if model_type not in _PARTS:
        raise ConfigError(
            f"freeze preset {preset!r} is not known of models of type {model_type!r}. Give "
            f"patterns of tensor names, such as {names[0]!r}."
        )
    parts = _PARTS[model_type]
    if preset != "all-but-cross-attention":
        return matching(names, getattr(parts, preset))
    trained = matching(names, parts.cross_attention)
    if not trained:
        raise ConfigError(
            f"freeze preset {preset!r} leaves nothing to train: a model of type {model_type!r} has "
            "no cross-attention, its image and its text go through the same layers. With "
            "freeze=['encoder', 'decoder'] what brings the image to the text layers is trained."
        )
    return set(names) - trained


def _no_match(pattern: str, names: Sequence[str]) -> str:
    if not set(pattern) & set(".*?["):  # a word: meant as a preset
        return (
            f"freeze preset {pattern!r} does not exist{nearest(pattern, PRESETS)} Presets: "
            f"{', '.join(PRESETS)}; or give patterns of tensor names, such as {names[0]!r}."
        )
    return (
        f"freeze pattern {pattern!r} matches no tensor. Names look like: {', '.join(names[:4])}, "
        f"... There are presets, too: {', '.join(PRESETS)}."
    )
