"""GIT without gradients: the image tokens once an image, then text that looks at them.

Image positions see all image positions and no text, so nothing at them depends on the text. All
that text needs of them is their keys and values in each layer, which every caption of an image
shares: the beams of a search, the samples, the references of an evaluation. transformers' own class
computes them for each, and the last layer at image positions for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import Cache, GenerationMixin, GitConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

_IMAGES_AT_ONCE = 4  # on a CPU, whose caches hold the activations of no more


def image_keys_values(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Keys and values of the image tokens, `(batch, layers, 2, heads, tokens, head width)`."""
    config, count = model.config, len(pixel_values)
    at_once = _IMAGES_AT_ONCE if pixel_values.device.type == "cpu" else count
    kept: torch.Tensor | None = None
    for first in range(0, count, at_once):
        chunk = slice(first, first + at_once)
        for number, states in enumerate(_keys_values(model.git, pixel_values[chunk])):
            if kept is None:  # each layer's together in memory, as attention reads them
                kept = states[0].new_empty(config.num_hidden_layers, 2, count, *states[0].shape[1:])
            kept[number, 0, chunk], kept[number, 1, chunk] = states
    assert kept is not None
    return kept.movedim(2, 0)


def text_states(
    git: Any,
    images: torch.Tensor,
    input_ids: torch.Tensor,
    mask: torch.Tensor | None = None,
    cache: Cache | None = None,
) -> torch.Tensor:
    """The last hidden states of text, `(rows, length, width)`.

    images: what `image_keys_values` gave. input_ids: `(rows, length)`, the same number of rows for
    each image, one after another. mask: `(rows, cached + length)`, 0 at padding.
    """
    past, length = 0 if cache is None else cache.get_seq_length(), input_ids.shape[1]
    visible = torch.ones(length, past + length, dtype=torch.bool, device=input_ids.device)
    visible = visible.tril(past)
    if mask is not None:
        visible = visible & mask.bool()[:, None, None, :]
    states = git.embeddings(input_ids=input_ids, past_key_values_length=past)
    for number, layer in enumerate(git.encoder.layer):
        query, key, value = _project(layer, states, "query", "key", "value")
        if cache is not None:
            key, value = cache.update(key, value, number)
        image_key, image_value = images[:, number].unbind(1)
        attended = _attend(query, image_key, image_value, key, value, visible)
        states = _rest_of_layer(layer, attended, states)
    return states


class GitText(PreTrainedModel, GenerationMixin):
    """The text part of a GIT and the images it looks at: a language model for `generate`."""

    config_class = GitConfig

    def __init__(self, model: Any, images: torch.Tensor):
        super().__init__(model.config)
        self.git, self.output = model.git, model.output
        self.generation_config = model.generation_config
        self.images = images
        self.train(model.training)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **unused: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token logits of the last position, `(rows, 1, vocab)`."""
        states = text_states(self.git, self.images, input_ids, attention_mask, past_key_values)
        return CausalLMOutputWithPast(
            logits=self.output(states[:, -1:]), past_key_values=past_key_values
        )


# ---- a layer, in parts ---------------------------------------------------------------------------


def _keys_values(git: Any, pixel_values: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Layer by layer the keys and values, each `(batch, heads, tokens, head width)`."""
    states = git.visual_projection(git.image_encoder(pixel_values).last_hidden_state)
    *layers, last = git.encoder.layer
    for layer in layers:
        query, key, value = _project(layer, states, "query", "key", "value")
        yield [key, value]
        attended = scaled_dot_product_attention(query, key, value)
        states = _rest_of_layer(layer, attended, states)
    yield _project(last, states, "key", "value")


def _project(layer: Any, states: torch.Tensor, *names: str) -> list[torch.Tensor]:
    """Of states `(batch, length, width)`, each `(batch, heads, length, head width)`."""
    attention = layer.attention.self
    shape = (attention.num_attention_heads, attention.attention_head_size)
    return [getattr(attention, name)(states).unflatten(-1, shape).transpose(1, 2) for name in names]


def _rest_of_layer(layer: Any, attended: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """attended: `(batch, heads, length, head width)`; states, result: `(batch, length, width)`."""
    states = layer.attention.output(attended.transpose(1, 2).flatten(2), states)
    return layer.output(layer.intermediate(states), states)


def _attend(
    query: torch.Tensor,
    image_key: torch.Tensor,
    image_value: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    visible: torch.Tensor,
) -> torch.Tensor:
    """Text `(rows, heads, length, width)` to the tokens of its images and to text before it."""
    (images, _, tokens, width), rows = image_key.shape, len(query)
    query = query * width**-0.5
    to_image = _by_row(_by_image(query, images) @ image_key.transpose(-1, -2), rows)
    to_text = (query @ key.transpose(-1, -2)).masked_fill(~visible, -torch.inf)
    weights = torch.cat([to_image, to_text], -1).softmax(-1)
    from_image = _by_row(_by_image(weights[..., :tokens], images) @ image_value, rows)
    return from_image + weights[..., tokens:] @ value


def _by_image(x: torch.Tensor, images: int) -> torch.Tensor:
    """`(rows, heads, length, width)` to `(images, heads, rows an image x length, width)`."""
    return x.unflatten(0, (images, -1)).transpose(1, 2).flatten(2, 3)


def _by_row(x: torch.Tensor, rows: int) -> torch.Tensor:
    """The way back."""
    return x.unflatten(2, (rows // len(x), -1)).transpose(1, 2).flatten(0, 1)
