"""A Flax model that is ready to caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy

from captionkit.backends.flax.devices import DTYPES, versions
from captionkit.backends.flax.generate import draws, generate
from captionkit.backends.flax.loss import IGNORED, caption_loss
from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.models.family import Family, Weights
from captionkit.backends.flax.processes import connect
from captionkit.backends.flax.step import normalised
from captionkit.batch_limit import BatchLimit
from captionkit.caption_arguments import (
    caption_lists,
    check_arguments,
    check_seeds,
    draw_seed,
)
from captionkit.data.captions import decoder_pairs, encode_captions
from captionkit.data.images import open_image
from captionkit.data.preprocess import Preprocessor
from captionkit.decode import decode_captions
from captionkit.decoding_defaults import decoding_defaults
from captionkit.errors import ConfigError
from captionkit.inputs import as_list, to_encode
from captionkit.models import load_tokenizer, model_type
from captionkit.prompt import encode_prompt
from captionkit.recipe import Decoding
from captionkit.types import Caption

_LENGTHS = 8  # teacher-forced captions are padded to a multiple of this


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images, `(rows, tokens, width)` on the device; rows beyond `count` are filling."""

    states: jax.Array
    count: int

    def __len__(self) -> int:
        return self.count


def load_captioner(
    checkpoint: Path,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> FlaxCaptioner:
    """Load a checkpoint folder: weights as `dtype` (fp32, bf16, fp16; default fp32).

    device: as JAX calls it (cpu, gpu:1, tpu, ...), or cuda; default: its own choice. Raises
    ConfigError for a device or dtype that there is not, and CheckpointError.
    """
    if dtype not in (None, *DTYPES):
        raise ConfigError(
            f"dtype={dtype!r} is not possible: it must be one of {', '.join(DTYPES)}."
        )
    connect()
    chosen = _device(device)
    if dtype == "fp16" and chosen.platform == "cpu":
        raise ConfigError("dtype='fp16' needs a GPU. Use 'fp32' or 'bf16' on a CPU.")
    family = family_of(model_type(checkpoint))
    config = family.config_of(checkpoint)
    preprocess = Preprocessor.from_checkpoint(checkpoint)
    preprocess.require_size(family.image_size(config), checkpoint)
    params = family.load_params(checkpoint, config)
    params = jax.tree.map(lambda x: x.astype(DTYPES[dtype or "fp32"]), params)
    return FlaxCaptioner(
        family, config, jax.device_put(params, chosen),
        load_tokenizer(checkpoint, trust_remote_code), preprocess, dtype or "fp32", checkpoint,
    )  # fmt: skip


class FlaxCaptioner:
    """Captions images with a Flax model.

    family: of its model type. config, params: the model; params on their device.
    tokenizer: its tokenizer. preprocess: its image preprocessing. dtype: what to compute in.
    checkpoint: the folder that it was loaded from; its decoding settings are the defaults.
    key: sampling without seeds goes on from it, call by call.
    """

    def __init__(
        self,
        family: Family,
        config: Any,
        params: Any,
        tokenizer: Any,
        preprocess: Preprocessor,
        dtype: str = "fp32",
        checkpoint: Path | None = None,
        key: jax.Array | None = None,
    ):
        self.family = family
        self.config = config
        self.params = params
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.dtype = DTYPES[dtype]
        self.checkpoint = checkpoint
        self.defaults: Mapping[str, Any] = decoding_defaults(checkpoint) if checkpoint else {}
        self.key = jax.random.key(0) if key is None else key
        self.graphdef, _ = family.abstract(config)
        self._batches: set[int] = set()  # numbers of rows that something is compiled for
        self._limit = BatchLimit(lambda: self.facts["device"], out_of_memory)

    @property
    def params(self) -> Any:
        """The parameters that it captions with."""
        return self._params

    @params.setter
    def params(self, params: Any) -> None:
        self._params = params
        self._weights: Weights | None = None

    @property
    def weights(self) -> Weights:
        """The parameters as generation takes them, made when they are first asked for."""
        if self._weights is None:
            self._weights = self.family.weights(self.graphdef, self.params)
        return self._weights

    @property
    def facts(self) -> dict[str, Any]:
        """What a report says of the captioner."""
        leaves = jax.tree.leaves(self.params)
        device = next(iter(leaves[0].devices()), None) if leaves else None
        return {
            "backend": "flax",
            "device": _name(device),
            "parameters": sum(leaf.size for leaf in leaves),
            "versions": versions(),
        }

    def encode(self, images: Any) -> EncodedImages:
        """Decode, preprocess and encode images once. Raises `ImageError`."""
        pixels = [
            self.preprocess(open_image(image, allow_urls=True)) for image in to_encode(images)
        ]
        return self._encode(pixels, self._rows(len(pixels)))

    def caption(
        self,
        images: Any,
        *,
        batch_size: int = 32,
        token_probabilities: bool = False,
        seeds: Sequence[int] | None = None,
        **decoding: Any,
    ) -> list[Caption]:
        """Caption one image or many.

        images: a path, URL, PIL image, array or bytes, a list of them, or what `encode` gave.
        batch_size: images captioned at once; fewer, and a warning, where they do not fit the memory
            of an accelerator. Greedy search and beams give the same captions whatever it is.
        token_probabilities: give each caption those of its tokens.
        seeds: for sampling, an integer an image. Its captions then depend on its seed alone, not
            on the images beside it. Without seeds the draws come from `key`, which every call
            moves on. Nothing else depends on them.
        decoding: fields of `Decoding` (num_beams, max_new_tokens, ...); default: the checkpoint's.

        Returns one `Caption` an image, in order; with num_return_sequences=n, n in a row for each
        image, best first. Raises `ImageError` for an image that cannot be read.
        """
        settings = check_arguments(self.defaults, decoding, batch_size)
        sources = images if isinstance(images, EncodedImages) else as_list(images)
        numbers = check_seeds(seeds, len(sources))
        keys = self._keys(settings, numbers, len(sources)) if settings.do_sample else None
        if isinstance(sources, EncodedImages):
            return self._caption(sources, settings, keys, token_probabilities, batch_size)
        captions = []
        for start in range(0, len(sources), batch_size):
            chunk = sources[start : start + batch_size]
            # what is left over is filled up to the size of the others
            rows = batch_size if len(sources) > batch_size else self._rows(len(chunk))
            pixels = [self.preprocess(open_image(image, allow_urls=True)) for image in chunk]
            captions += self._caption(
                self._encode(pixels, rows),
                settings,
                None if keys is None else keys[start : start + batch_size],
                token_probabilities,
                batch_size,
            )
        return captions

    def loss(self, images: Any, captions: Sequence[str | Sequence[str]]) -> tuple[float, int]:
        """Teacher-forced negative log-likelihood (nats), summed over target tokens; their number.

        captions: for each image one caption or several, each of which counts. Those longer than
            the model allows are cut to what it does. Raises ConfigError for captions of fewer or
            more images, and DataError for one that holds nothing the tokenizer knows.
        """
        encoded = images if isinstance(images, EncodedImages) else self.encode(as_list(images))
        texts, owners = caption_lists(captions, len(encoded))
        limit = self.family.text_limit(self.config)
        ids = encode_captions(
            self.tokenizer, texts, max_tokens=limit, own_start=self.family.own_start
        )
        start, _, pad = self.family.token_ids(self.config)
        pairs = [decoder_pairs(caption, start) for caption in ids]

        def part(first: int, last: int, size: int) -> tuple[float, int]:
            inputs, targets = _padded(pairs[first:last], (size, limit), pad)
            chosen = numpy.zeros(size, numpy.int32)
            chosen[: last - first] = owners[first:last]
            total = _loss(
                self.family, self.graphdef, self.params, encoded.states, chosen, inputs, targets
            )
            return float(total), int((targets != IGNORED).sum())

        # as many captions at once as images, the last ones filled up
        parts = self._limit.run("loss", len(pairs), len(encoded.states), part)
        return math.fsum(total for total, _ in parts), sum(count for _, count in parts)

    # ---- below the surface -----------------------------------------------------------------

    def _encode(self, pixels: list[numpy.ndarray], rows: int) -> EncodedImages:
        def part(first: int, last: int, size: int) -> jax.Array:
            filled = rows if last - first == len(pixels) else size
            batch = numpy.zeros(
                (filled, self.preprocess.height, self.preprocess.width, 3), numpy.uint8
            )
            for row, image in enumerate(pixels[first:last]):
                batch[row] = image
            states = _encoded(
                self.family, self.graphdef, self.preprocess, self.dtype, self.params, batch
            )
            states = jax.block_until_ready(states)  # where memory runs out, it is here
            self._batches.add(filled)
            return states

        count = len(pixels)
        parts = self._limit.run("encode", count, max(1, count), part)
        if len(parts) == 1:
            return EncodedImages(parts[0], count)
        return EncodedImages(jnp.concatenate(parts)[:count], count)

    def _caption(
        self,
        encoded: EncodedImages,
        settings: Decoding,
        keys: numpy.ndarray | None,
        token_probabilities: bool,
        batch_size: int,
    ) -> list[Caption]:
        prompt, settings = encode_prompt(
            self.tokenizer, settings, self.family.text_limit(self.config)
        )
        tokens = self.family.token_ids(self.config)

        def part(first: int, last: int, size: int) -> list[Caption]:
            states = _filled(encoded, first, last, size)
            row_keys = None
            if keys is not None:
                some = numpy.zeros((len(states), *keys.shape[1:]), numpy.uint32)
                some[: last - first] = keys[first:last]
                row_keys = jax.random.wrap_key_data(some, impl="threefry2x32")
            found = generate(
                self.family, self.graphdef, self.weights, states, settings, tokens, last - first,
                row_keys, prompt,
            )  # fmt: skip
            ids, lengths, log_probs = (
                numpy.asarray(x)[: last - first].reshape(-1, *x.shape[2:]) for x in found
            )
            kept = [row[:n] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
            logs = [row[:n] for row, n in zip(log_probs.tolist(), lengths.tolist(), strict=True)]
            return decode_captions(self.tokenizer, kept, logs, token_probabilities, prompt)

        lanes = max(settings.num_beams, settings.num_return_sequences)
        parts = self._limit.run(("caption", lanes), len(encoded), batch_size, part)
        return [caption for captions in parts for caption in captions]

    def _keys(self, settings: Decoding, seeds: list[int] | None, images: int) -> numpy.ndarray:
        """What sampling draws from: uint32 `(images, draws, 2)`."""
        lanes = draws(settings)
        if seeds is None:
            self.key, key = jax.random.split(self.key)
            return numpy.asarray(jax.random.bits(key, (images, lanes, 2), jnp.uint32))
        bits = [[draw_seed(seed, lane) for lane in range(lanes)] for seed in seeds]
        return numpy.array(bits, numpy.uint64).reshape(images, lanes, 1).view(numpy.uint32)

    def _rows(self, count: int) -> int:
        """Rows to compute for so many images: a size that is compiled, if not far too large."""
        compiled = [rows for rows in self._batches if count <= rows <= 4 * count]
        if compiled:
            return min(compiled)
        return 1 << (count - 1).bit_length() if count <= 8 else -(-count // 8) * 8


def _filled(encoded: EncodedImages, first: int, last: int, size: int) -> jax.Array:
    """The states of some of the images; a part has as many rows as the others."""
    if last - first == len(encoded):
        return encoded.states
    states = encoded.states[first:last]
    return jnp.pad(states, ((0, size - len(states)), *[(0, 0)] * (states.ndim - 1)))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _encoded(
    family: Family,
    graphdef: Any,
    preprocess: Preprocessor,
    dtype: Any,
    params: Any,
    pixels: jax.Array,
) -> jax.Array:
    return family.encode(graphdef, params, normalised(pixels, preprocess), dtype)


@partial(jax.jit, static_argnums=(0, 1))
def _loss(
    family: Family,
    graphdef: Any,
    params: Any,
    states: jax.Array,
    chosen: jax.Array,
    inputs: jax.Array,
    targets: jax.Array,
) -> jax.Array:
    """Summed over the targets of captions, the n-th of image `chosen[n]`."""
    # padding comes last, where no position before it looks
    logits = family.decode(graphdef, params, states[chosen], inputs, None)
    return caption_loss(logits, targets)


def _padded(
    pairs: Sequence[tuple[list[int], list[int]]], largest: tuple[int, int], pad: int
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Inputs and targets, `(rows, length)`; targets are IGNORED at padding."""
    rows, limit = largest
    longest = max(len(inputs) for inputs, _ in pairs)
    shape = (rows, min(-(-longest // _LENGTHS) * _LENGTHS, limit))
    inputs = numpy.full(shape, pad, numpy.int32)
    targets = numpy.full(shape, IGNORED, numpy.int32)
    for row, (given, wanted) in enumerate(pairs):
        inputs[row, : len(given)] = given
        targets[row, : len(wanted)] = wanted
    return inputs, targets


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device has no memory left."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def _name(device: jax.Device | None) -> str:
    """cpu, gpu:0, ...: as `load` takes it."""
    if device is None or device.platform == "cpu":
        return "cpu"
    return f"{device.platform}:{device.id}"


def _device(wanted: str | None) -> jax.Device:
    """The wanted device (cpu, cuda, gpu:1, tpu, ...), or JAX's own choice."""
    if wanted is None:
        return jax.local_devices()[0]
    platform, _, number = wanted.partition(":")
    try:
        devices = jax.local_devices(backend={"cuda": "gpu"}.get(platform, platform))
        return devices[int(number or 0)]
    except (RuntimeError, ValueError, IndexError):
        found = ", ".join(f"{device.platform}:{device.id}" for device in jax.local_devices())
        raise ConfigError(
            f"device={wanted!r} was asked for, but JAX sees {found}. Use device='cpu', or install "
            "JAX with support for it."
        ) from None
