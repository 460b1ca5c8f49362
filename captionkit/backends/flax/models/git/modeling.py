"""GIT (Wang et al. 2022, arXiv:2205.14100): image tokens and text in one sequence.

Image positions see all image positions and no text; a text position sees the image and the text
before it. So nothing at image positions depends on the text.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from captionkit.backends.flax.models.bert.modeling import Embeddings, Layer
from captionkit.backends.flax.models.clip.modeling import CLIPVision
from captionkit.backends.flax.models.git.config import GitConfig
from captionkit.backends.flax.models.layers import (
    Embedding,
    LayerNorm,
    Linear,
    attention,
    parameter,
    scan_layers,
    split_key,
)


class Git(nnx.Module):
    """An image and the text so far to next-token logits.

    The last layer stands apart: of image positions only its keys and values are needed.
    """

    def __init__(self, config: GitConfig):
        text, vision = config.text, config.vision
        width, std = text.hidden_size, text.initializer_range
        self.config = config
        self.image_encoder = CLIPVision(vision)
        self.visual_projection = Linear(vision.hidden_size, width, std=std)
        self.visual_norm = LayerNorm(width, epsilon=vision.layer_norm_eps)
        self.embeddings = Embeddings(text)
        self.layers = Layer(text, stack=(text.num_hidden_layers - 1,))
        self.last_layer = Layer(text)
        if not text.tie_word_embeddings:
            self.output = Embedding(text.vocab_size, width, std=std)
        self.output_bias = parameter((text.vocab_size,))

    @property
    def output_embedding(self) -> Embedding:
        """`(vocab, width)`, the input embedding where the two are tied."""
        return self.embeddings.word if self.config.text.tie_word_embeddings else self.output

    def encode(
        self,
        pixel_values: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
        dtype: jnp.dtype = jnp.float32,
        remat: bool = False,
        unroll: bool = False,
    ) -> jax.Array:
        """`(batch, height, width, 3)` -> image tokens, `(batch, tokens, width)` in `dtype`."""
        x = self.image_encoder(
            pixel_values, dropout_key=dropout_key, dtype=dtype, remat=remat, unroll=unroll
        )
        return self.visual_norm(self.visual_projection(x))

    def decode(
        self,
        states: jax.Array,
        input_ids: jax.Array,
        mask: jax.Array | None,
        *,
        dropout_key: jax.Array | None = None,
        remat: bool = False,
        unroll: bool = False,
    ) -> jax.Array:
        """Image tokens and ids `(batch, length)` -> logits `(batch, length, vocab)`.

        mask: `(batch, length)`, false (or 0) at padding; None: there is no padding.
        """
        text, (tokens, length) = self.config.text, (states.shape[1], input_ids.shape[1])
        keys = split_key(dropout_key, 3)
        y = self.embeddings(input_ids, jnp.arange(length), states.dtype, keys[0])
        x = jnp.concatenate([states, y], axis=1)
        visible = _visible(mask, tokens, length)

        def body(layer: Layer, x: jax.Array, key: jax.Array | None) -> jax.Array:
            return _whole_layer(layer, x, tokens, visible, key)

        count = text.num_hidden_layers - 1
        layer_keys = None if dropout_key is None else jax.random.split(keys[1], count)
        x = scan_layers(body, x, self.layers, layer_keys, remat=remat, unroll=unroll)
        x = _text_of_last_layer(self.last_layer, x, tokens, visible, keys[2])
        return self.output_embedding.attend(x) + self.output_bias[...].astype(x.dtype)


def _visible(mask: jax.Array | None, tokens: int, length: int) -> jax.Array:
    """`(batch or 1, 1, length, tokens + length)`: what text positions may look at."""
    text = jnp.tril(jnp.ones((length, length), bool))[None, None]
    if mask is not None:
        text = text & mask.astype(bool)[:, None, None, :]
    return jnp.pad(text, ((0, 0), (0, 0), (0, 0), (tokens, 0)), constant_values=True)


def _whole_layer(
    layer: Layer, x: jax.Array, tokens: int, visible: jax.Array, dropout_key: jax.Array | None
) -> jax.Array:
    """x: `(batch, tokens + length, width)` -> the same."""
    config, keys = layer.config, split_key(dropout_key, 4)
    settings = {"scale": config.attention_scale, "rate": config.attention_probs_dropout_prob}
    query, (key, value) = layer.queries(x), layer.keys_values(x)
    # apart, so that no attention from the image to the text is computed to be masked
    image = attention(
        query[:, :tokens], key[:, :tokens], value[:, :tokens], dropout_key=keys[0], **settings
    )
    text = attention(query[:, tokens:], key, value, mask=visible, dropout_key=keys[1], **settings)
    x = layer.after_attention(x, jnp.concatenate([image, text], axis=1), keys[2])
    return layer.perceptron(x, keys[3])


def _text_of_last_layer(
    layer: Layer, x: jax.Array, tokens: int, visible: jax.Array, dropout_key: jax.Array | None
) -> jax.Array:
    """x: `(batch, tokens + length, width)` -> `(batch, length, width)`."""
    config, keys = layer.config, split_key(dropout_key, 3)
    text = x[:, tokens:]
    attended = attention(
        layer.queries(text), *layer.keys_values(x), mask=visible, scale=config.attention_scale,
        rate=config.attention_probs_dropout_prob, dropout_key=keys[0],
    )  # fmt: skip
    return layer.perceptron(layer.after_attention(text, attended, keys[1]), keys[2])
