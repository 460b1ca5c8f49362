"""Captions as the model's tokenizer sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captionkit.data.captions import build_word_tokenizer, frame
from captionkit.errors import CheckpointError
from captionkit.models import has_weights, load_tokenizer, read_config, resolve_model

if TYPE_CHECKING:
    from captionkit.doctor.findings import Item
    from captionkit.doctor.listing import Entry

_BATCH = 2000
_POSITIONS = ("max_position_embeddings", "n_positions", "max_target_positions")
_COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert")
_MOST_UNKNOWN = 0.01  # share of tokens; above it, captions with unknown words are a finding


@dataclass(frozen=True)
class TokenCounts:
    """Lengths of captions in tokens, start and end included.

    lengths: how many captions have each length. limit: what the model allows, None where its
    config does not say. unknown_share: tokens that stand for no known word, of all tokens.
    """

    model: str
    lengths: dict[int, int]
    limit: int | None
    unknown_share: float

    def at(self, share: float) -> int:
        """The smallest length that at least this share of the captions do not exceed."""
        total, seen = sum(self.lengths.values()), 0
        for length in sorted(self.lengths):
            seen += self.lengths[length]
            if seen >= share * total:
                return length
        return 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "model": self.model,
            "limit": self.limit,
            "median": self.at(0.5),
            "share_95": self.at(0.95),
            "max": self.at(1),
            "unknown_share": self.unknown_share,
            "lengths": {str(length): self.lengths[length] for length in sorted(self.lengths)},
        }

    def __str__(self) -> str:
        allowed = f"; the model allows {self.limit:,}" if self.limit else ""
        return (
            f"median {self.at(0.5)}, 95 % up to {self.at(0.95)}, longest {self.at(1)}{allowed}; "
            f"{100 * self.unknown_share:.2g} % unknown"
        )


def count_tokens(
    model: str, entries: Sequence[Entry], names: Sequence[str], trust_remote_code: bool = False
) -> tuple[TokenCounts, dict[str, list[Item]]]:
    """Token counts of all captions that are not empty, and cases by kind.

    model: as `finetune` takes it. One that comes without a tokenizer gets that of its training,
    made of the words in the training captions. Raises CheckpointError or HubError.
    """
    folder = resolve_model(model, trust_remote_code)
    tokenizer = _tokenizer(folder, entries, trust_remote_code)
    limit = text_limit(folder)
    around = sum(map(len, frame(tokenizer)))
    unknown_id = tokenizer.unk_token_id
    lengths: Counter[int] = Counter()
    unknown = words = 0
    with_unknown: list[Item] = []
    cases: dict[str, list[Item]] = {"too_many_tokens": [], "no_tokens": []}
    captions = [
        (i, text) for i, entry in enumerate(entries) for text in entry.captions if text.strip()
    ]
    for start in range(0, len(captions), _BATCH):
        some = captions[start : start + _BATCH]
        ids = tokenizer([text for _, text in some], add_special_tokens=False, verbose=False)
        for (i, text), body in zip(some, ids["input_ids"], strict=True):
            count = len(body) + around
            lengths[count] += 1
            words += len(body)
            if not body:
                cases["no_tokens"].append(_item(i, text, "", names))
            if limit is not None and count > limit:
                cases["too_many_tokens"].append(_item(i, text, f"{count} tokens: ", names))
            if here := sum(token == unknown_id for token in body):
                unknown += here
                said = f"{here} of {len(body)} tokens: "
                with_unknown.append(_item(i, text, said, names))
    share = unknown / words if words else 0.0
    if share > _MOST_UNKNOWN:
        cases["unknown_tokens"] = with_unknown
    return TokenCounts(model, dict(lengths), limit, share), cases


def text_limit(model: Path) -> int | None:
    """The longest caption in tokens that a model allows, by its config.json alone.

    Of a pair of encoder and decoder the decoder's positions count. Raises CheckpointError for a
    config that cannot be read.
    """
    part = read_config(model)
    while isinstance(inner := part.get("decoder") or part.get("text_config"), dict):
        part = inner
    limit = next((part[name] for name in _POSITIONS if isinstance(part.get(name), int)), None)
    if limit is None:
        limit = _default_positions(part.get("model_type"))
    if limit is not None and part.get("model_type") in _COUNT_FROM_PADDING:
        limit -= part.get("pad_token_id", 1) + 1  # where these begin to count
    return limit


def _default_positions(model_type: Any) -> int | None:
    """Where config.json leaves it out, as transformers does with what is the default."""
    from transformers import AutoConfig

    try:
        return int(AutoConfig.for_model(model_type).max_position_embeddings)
    except (ValueError, AttributeError, TypeError):
        return None


def _tokenizer(folder: Path, entries: Sequence[Entry], trust_remote_code: bool) -> Any:
    if folder.is_dir():
        try:
            return load_tokenizer(folder, trust_remote_code)
        except CheckpointError:
            if has_weights(folder):
                raise
    # a config alone: its training makes a tokenizer of the training captions
    return build_word_tokenizer(
        text for entry in entries if entry.split == "train" for text in entry.captions
    )


def _item(i: int, text: str, said: str, names: Sequence[str]) -> Item:
    from captionkit.doctor.captions import shortened  # these two import this module
    from captionkit.doctor.findings import Item

    return Item((names[i],), said + shortened(text), (i,))
