"""Reading one part of a Hugging Face config into a frozen dataclass; nothing is passed over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from captionkit.errors import CheckpointError

# Options of every config in transformers 4 and 5 that change no logits.
_GENERIC = {
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures",
    "attn_implementation", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "decoder_start_token_id", "diversity_penalty", "do_sample",
    "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id",
    "forced_eos_token_id", "gradient_checkpointing", "id2label", "is_encoder_decoder",
    "label2id", "length_penalty", "max_length", "min_length", "model_type",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
    "output_attentions", "output_hidden_states", "output_scores", "pad_token_id", "prefix",
    "problem_type", "processor_class", "remove_invalid_values", "repetition_penalty",
    "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tokenizer_class", "top_k",
    "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p", "use_bfloat16",
    "use_cache",
}  # fmt: skip


def read_part(
    values: Mapping[str, Any],
    where: str,
    fields: Mapping[str, Any],
    *,
    aliases: Mapping[str, str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    without_effect: Collection[str] = (),
) -> dict[str, Any]:
    """The values of `fields` (by name, with their defaults) in one part of a config.

    aliases: other names of fields. fixed: options that are supported with one value only.
    without_effect: options that change no logits. Every other option that is set to something is a
    CheckpointError that names it, for it might change what the model computes.
    """
    renamed = {(aliases or {}).get(name, name): value for name, value in values.items()}
    for name, value in renamed.items():
        if fixed and name in fixed and value != fixed[name]:
            raise CheckpointError(
                f"{where}: {name}={value!r} is not supported by the Flax backend; it must be "
                f"{fixed[name]!r}."
            )
        known = name in fields or name in (fixed or ()) or name in without_effect
        if not known and name not in _GENERIC and value not in (None, False, {}, []):
            raise CheckpointError(
                f"{where}: the option {name}={value!r} is not known to the Flax backend, so the "
                "model might compute something else. Remove it if it has no effect."
            )
    result = {name: renamed.get(name, default) for name, default in fields.items()}
    for name, default in fields.items():
        _check_type(where, name, result[name], default)
    return result


def size_pair(value: Any, where: str, name: str) -> tuple[int, int]:
    """(height, width) of a size that is one number or two."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2 or not all(_is_size(number) for number in pair):
        raise CheckpointError(f"{where}: {name}={value!r} should be one whole number or two.")
    return pair


def check_sizes(where: str, values: Mapping[str, Any], *names: str) -> None:
    """Refuse what is not a positive whole number."""
    for name in names:
        if not _is_size(values[name]):
            raise CheckpointError(
                f"{where}: {name}={values[name]!r} should be a whole number above 0."
            )


def check_heads(where: str, width: int, heads: int) -> None:
    """Refuse a width that the attention heads do not share evenly."""
    if width % heads:
        raise CheckpointError(f"{where}: a width of {width} does not divide by {heads} heads.")


def _check_type(where: str, name: str, value: Any, default: Any) -> None:
    if default is None or value is default:
        return
    kinds: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
    if isinstance(default, tuple):
        kinds = (int, list, tuple)
    if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise CheckpointError(
            f"{where}: {name}={value!r} should be of the kind of {default!r}, its default."
        )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
