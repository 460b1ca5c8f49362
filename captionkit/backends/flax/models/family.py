"""A model family: all that training, generation and checkpoints see of a model.

A model is a pair (graphdef, params): `graphdef` is static and hashable, `params` a nested dict of
float32 arrays in which the layers of a stack lie behind one another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy
from flax import nnx

from captionkit.backends.flax.models import convert
from captionkit.backends.flax.models.config_file import TokenIds, read_config
from captionkit.backends.flax.models.files import read_tensors, write_tensors
from captionkit.backends.flax.models.initial import initial_values
from captionkit.data.captions import special_ids

Params = dict[str, Any]


class Config(Protocol):
    """What a family's configuration offers: a frozen dataclass, hashable.

    source: config.json as it was read, to be written again. text_limit: the longest caption in
    tokens, start and end included. image_size: (height, width) in pixels; None: any.
    """

    def __hash__(self) -> int: ...
    @property
    def source(self) -> str: ...  # noqa: D102 (the class says it)
    @property
    def token_ids(self) -> TokenIds: ...  # noqa: D102 (the class says it)
    @property
    def text_limit(self) -> int: ...  # noqa: D102 (the class says it)
    @property
    def image_size(self) -> tuple[int, int] | None: ...  # noqa: D102 (the class says it)

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], where: str, generation: Mapping[str, Any] | None = None
    ) -> Config:
        """From config.json and generation_config.json, whose token ids go first.

        Raises CheckpointError for what the model would compute otherwise than we do.
        """

    @staticmethod
    def for_tokens(
        values: dict[str, Any], vocab_size: int, start: int, end: int, pad: int
    ) -> dict[str, Any]:
        """config.json with vocabulary size and special ids, for a model made from scratch."""


class Weights(NamedTuple):
    """What captions are generated with.

    params: as always. layers: the parameters of the decoder's layers one by one. They are sliced
    from their stack once; in the loop that would copy them for every token.
    """

    params: Params
    layers: list[Any]


@dataclass(eq=False)  # hashed by identity, since compiled functions take it as a static argument
class Family:
    """One model type: its configuration, its module, its table of weights, its decoding.

    model_type, architecture: as config.json names them.
    config: the class of its configuration.
    module: an NNX module made of a configuration. `encode(pixel_values, dropout_key=, dtype=,
        remat=, unroll=)` gives `(batch, tokens, width)`, all that does not depend on the text;
        `decode(states, input_ids, mask, dropout_key=, remat=, unroll=)` the logits.
    table: the rows of a configuration. known_names: `(tensors of a file, config, where)` -> those
        that the table knows, under its names.
    decoder_layers: `(graphdef, params)` -> the parameters of each layer of the decoder.
    start_decoding: `(graphdef, weights, states, lanes, length)` -> (what does not change while
        captions are generated, an empty cache for `lanes` captions an image of `length` tokens).
        The leaves of the cache begin with `(batch x lanes, ...)` and may be reordered along it.
    decode_step: `(graphdef, prepared, cache, tokens, position)`, tokens `(batch, lanes)` ->
        (logits `(batch x lanes, vocab)` of the next token, the cache with this position).
    untrained: patterns of tensors that no caption depends on; they are kept as they are.
    own_start: whether captions keep the start tokens that the tokenizer gives them.
    """

    model_type: str
    architecture: str
    config: type[Any]
    module: Callable[[Any], nnx.Module]
    table: Callable[[Any], convert.Table]
    known_names: Callable[[Mapping[str, numpy.ndarray], Any, str], Mapping[str, numpy.ndarray]]
    decoder_layers: Callable[..., list[Any]]
    start_decoding: Callable[..., Any]
    decode_step: Callable[..., Any]
    untrained: tuple[str, ...] = ()
    own_start: bool = True

    # ---- what a model is made of -------------------------------------------------------------

    def config_of(self, folder: Path) -> Any:
        """The configuration in a checkpoint folder. Raises CheckpointError for what we lack."""
        return self.config.from_dict(*read_config(folder))

    def for_tokenizer(self, config: Config, tokenizer: Any) -> Any:
        """The configuration with vocabulary and special ids, for a model made from scratch."""
        values = config.for_tokens(
            json.loads(config.source), len(tokenizer), *special_ids(tokenizer)
        )
        return self.config.from_dict(values, "config.json")

    def text_limit(self, config: Config) -> int:
        """The longest caption in tokens, start and end included."""
        return config.text_limit

    def image_size(self, config: Config) -> tuple[int, int] | None:
        """(height, width) in pixels that the image encoder was made for; None: any will do."""
        return config.image_size

    def token_ids(self, config: Config) -> TokenIds:
        """The token that decoding starts from, those that end a caption, the one that pads it."""
        return config.token_ids

    def abstract(self, config: Config) -> tuple[nnx.GraphDef, Params]:
        """(graphdef, shapes and dtypes of the parameters)."""
        graphdef, state = _split(self.module, config)
        return graphdef, nnx.to_pure_dict(state)

    # ---- weights -----------------------------------------------------------------------------

    def init_params(self, config: Config, seed: int) -> Params:
        """Parameters as transformers initialises them: normal, the same for a seed anywhere."""
        return initial_values(_split(self.module, config)[1], seed)

    def load_params(self, folder: Path, config: Config) -> Params:
        """The weights of a folder (safetensors, whole or sharded, or flax_model.msgpack) as numpy.

        Raises CheckpointError with the names that are missing, unknown, or of another shape.
        """
        tensors = self.known_names(read_tensors(folder), config, str(folder))
        return convert.to_flax(tensors, self.table(config), self.abstract(config)[1], str(folder))

    def save_params(self, folder: Path, params: Params, config: Config) -> None:
        """Write `model.safetensors` and `config.json`, as transformers names things."""
        values = json.loads(config.source) | {"architectures": [self.architecture]}
        values = {"dtype": "float32", "model_type": self.model_type} | values
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder, convert.to_hf(params, self.table(config)))
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")

    def tensor_names(self, config: Config) -> list[tuple[str, tuple[str, ...], int | None]]:
        """(name in model.safetensors, path of the parameter, its layer where they are stacked)."""
        return convert.tensor_names(self.table(config), self.abstract(config)[1])

    # ---- forward -----------------------------------------------------------------------------

    def apply(
        self,
        graphdef: nnx.GraphDef,
        params: Params,
        pixel_values: jax.Array,
        input_ids: jax.Array,
        mask: jax.Array | None,
        *,
        dropout_key: jax.Array | None = None,
        dtype: jnp.dtype = jnp.float32,
        remat: bool = False,
        unroll: bool = False,
    ) -> jax.Array:
        """Teacher-forced next-token logits, `(batch, length, vocab)` in `dtype`.

        pixel_values: `(batch, height, width, 3)`, normalised. input_ids: `(batch, length)`, the
        start token first. mask: `(batch, length)`, false at padding. Without a dropout key there is
        none. remat: keep no activation of a layer for the backward pass. unroll: no loop over
        layers.
        """
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        settings = {"remat": remat, "unroll": unroll}
        model = nnx.merge(graphdef, params)
        states = model.encode(pixel_values, dropout_key=keys[0], dtype=dtype, **settings)
        return model.decode(states, input_ids, mask, dropout_key=keys[1], **settings)

    def encode(
        self,
        graphdef: nnx.GraphDef,
        params: Params,
        pixel_values: jax.Array,
        dtype: jnp.dtype = jnp.float32,
    ) -> jax.Array:
        """The encoded images, `(batch, tokens, width)` in `dtype`."""
        return nnx.merge(graphdef, params).encode(pixel_values, dtype=dtype)

    def decode(
        self,
        graphdef: nnx.GraphDef,
        params: Params,
        states: jax.Array,
        input_ids: jax.Array,
        mask: jax.Array | None,
    ) -> jax.Array:
        """Teacher-forced next-token logits, `(batch, length, vocab)`, from encoded images."""
        return nnx.merge(graphdef, params).decode(states, input_ids, mask)

    def weights(self, graphdef: nnx.GraphDef, params: Params) -> Weights:
        """What `start_decoding` takes; the layers are copies."""
        return Weights(params, _layers(self.decoder_layers, graphdef, params))


@partial(jax.jit, static_argnums=(0, 1))
def _layers(decoder_layers: Callable[..., list[Any]], graphdef: Any, params: Params) -> list[Any]:
    return decoder_layers(graphdef, params)


@lru_cache(maxsize=8)
def _split(module: Callable[[Any], nnx.Module], config: Config) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(module(config), nnx.Param)
