"""The words that captions are made to begin with; the same for every backend."""

from __future__ import annotations

import dataclasses
from typing import Any

from captionkit.errors import ConfigError
from captionkit.recipe import Decoding


def encode_prompt(tokenizer: Any, settings: Decoding, limit: int) -> tuple[list[int], Decoding]:
    """The prompt's token ids, and the settings with no more new tokens than the model allows.

    limit: the text positions of the model. Raises ConfigError for a prompt that fills them, and
    for one with special or unknown tokens in it.
    """
    ids: list[int] = []
    if prompt := settings.prompt.strip():
        ids = list(tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"])
    if tokenizer.unk_token_id in ids:
        raise ConfigError(
            f"prompt={settings.prompt!r} holds words that the model's tokenizer does not know, so "
            "no caption could begin with it. Use words that its training captions had."
        )
    special = set(tokenizer.all_special_ids)
    found = [token for token in ids if token in special]
    if found:
        names = ", ".join(map(str, tokenizer.convert_ids_to_tokens(found)))
        raise ConfigError(
            f"prompt={settings.prompt!r} holds the special token {names}, which has a meaning of "
            "its own to the model. Write the prompt in words."
        )
    room = limit - len(ids)
    if room < 1:
        raise ConfigError(
            f"prompt={settings.prompt!r} is {len(ids)} tokens long, and the model has positions "
            f"for {limit}: nothing is left for the caption. Shorten it."
        )
    # past its last text position the model has no embedding
    most = min(settings.max_new_tokens, room)
    return ids, dataclasses.replace(settings, max_new_tokens=most)
