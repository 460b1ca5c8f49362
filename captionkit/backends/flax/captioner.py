"""A Flax model that is ready to caption."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy

from captionkit.backends.flax.devices import DTYPES
from captionkit.backends.flax.generate import generate
from captionkit.backends.flax.loss import IGNORED, caption_loss
from captionkit.backends.flax.models import family_of
from captionkit.backends.flax.step import normalised
from captionkit.data.captions import decoder_pairs, encode_captions
from captionkit.data.images import open_image
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError, ConfigError
from captionkit.inputs import as_list
from captionkit.models import load_tokenizer, model_type
from captionkit.recipe import Decoding
from captionkit.settings import unknown_setting
from captionkit.types import Caption

if TYPE_CHECKING:
    from captionkit.types import ImageSource

_DECODING = [field.name for field in dataclasses.fields(Decoding)]
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
    """Load a checkpoint folder: weights as `dtype` (fp32, bf16, fp16; default fp32)."""
    if dtype not in (None, *DTYPES):
        raise ConfigError(
            f"dtype={dtype!r} is not possible: it must be one of {', '.join(DTYPES)}."
        )
    chosen = _device(device)
    if dtype == "fp16" and chosen.platform == "cpu":
        raise ConfigError("dtype='fp16' needs a GPU. Use 'fp32' or 'bf16' on a CPU.")
    family = family_of(model_type(checkpoint))
    config = family.config_of(checkpoint)
    preprocess = Preprocessor.from_checkpoint(checkpoint)
    size, expected = (preprocess.height, preprocess.width), family.image_size(config)
    if size != expected:
        raise CheckpointError(
            f"{checkpoint}: the image processor makes images of {size[0]} x {size[1]} pixels, and "
            f"the model takes {expected[0]} x {expected[1]}. Correct preprocessor_config.json."
        )
    params = family.load_params(checkpoint, config)
    params = jax.tree.map(lambda x: x.astype(DTYPES[dtype or "fp32"]), params)
    return FlaxCaptioner(
        family, config, jax.device_put(params, chosen),
        load_tokenizer(checkpoint, trust_remote_code), preprocess, dtype or "fp32",
        decoding_defaults(checkpoint),
    )  # fmt: skip


class FlaxCaptioner:
    """Captions images with a Flax model.

    family: the module of its model type. config, params: the model; params on their device.
    tokenizer: its tokenizer. preprocess: its image preprocessing. dtype: what to compute in.
    defaults: decoding settings of the checkpoint. key: sampling goes on from it, call by call.
    """

    def __init__(
        self,
        family: ModuleType,
        config: Any,
        params: Any,
        tokenizer: Any,
        preprocess: Preprocessor,
        dtype: str = "fp32",
        defaults: Mapping[str, Any] | None = None,
        key: jax.Array | None = None,
    ):
        self.family = family
        self.config = config
        self.params = params
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.dtype = DTYPES[dtype]
        self.defaults = dict(defaults or {})
        self.key = jax.random.key(0) if key is None else key
        self.graphdef, _ = family.abstract(config)
        self._batches: set[int] = set()  # numbers of rows that something is compiled for

    def encode(self, images: Sequence[ImageSource]) -> EncodedImages:
        """Decode, preprocess and encode images once. Raises `ImageError`."""
        pixels = [self.preprocess(open_image(image, allow_urls=True)) for image in images]
        return self._encode(pixels, self._rows(len(pixels)))

    def caption(self, images: Any, *, batch_size: int = 32, **decoding: Any) -> list[Caption]:
        """Caption one image or many.

        images: a path, URL, PIL image, array or bytes, a list of them, or what `encode` gave.
        batch_size: images captioned at once.
        decoding: fields of `Decoding` (num_beams, max_new_tokens, ...); default: the checkpoint's.

        Returns one `Caption` an image, in order; with num_return_sequences=n, n in a row for each
        image, best first. Raises `ImageError` for an image that cannot be read.
        """
        for name in decoding:
            if name not in _DECODING:
                raise unknown_setting(name, _DECODING)
        settings = Decoding(**{**self.defaults, **decoding})
        if isinstance(images, EncodedImages):
            parts = self._parts(images, batch_size)
            return [caption for part in parts for caption in self._caption(part, settings)]
        sources, captions = as_list(images), []
        for start in range(0, len(sources), batch_size):
            chunk = sources[start : start + batch_size]
            # what is left over is filled up to the size of the others
            rows = batch_size if len(sources) > batch_size else self._rows(len(chunk))
            pixels = [self.preprocess(open_image(image, allow_urls=True)) for image in chunk]
            captions += self._caption(self._encode(pixels, rows), settings)
        return captions

    def loss(self, images: Any, captions: Sequence[str | Sequence[str]]) -> tuple[float, int]:
        """Teacher-forced negative log-likelihood (nats), summed over target tokens; their number.

        captions: for each image one caption or several, each of which counts.
        """
        encoded = images if isinstance(images, EncodedImages) else self.encode(as_list(images))
        many = [[c] if isinstance(c, str) else list(c) for c in captions]
        owners = [row for row, texts in enumerate(many) for _ in texts]
        limit = self.family.text_limit(self.config)
        ids = encode_captions(
            self.tokenizer, [text for texts in many for text in texts], max_tokens=limit
        )
        start, _, pad = self.family.token_ids(self.config)
        pairs = [decoder_pairs(caption, start) for caption in ids]
        total, count, rows = 0.0, 0, len(encoded.states)
        for first in range(0, len(pairs), rows):  # no more rows at once than images
            inputs, targets = _padded(pairs[first : first + rows], (rows, limit), pad)
            chosen = numpy.zeros(rows, numpy.int32)
            chosen[: len(owners[first : first + rows])] = owners[first : first + rows]
            total += float(
                _loss(
                    self.family, self.graphdef, self.params, encoded.states, chosen, inputs, targets
                )
            )
            count += int((targets != IGNORED).sum())
        return total, count

    # ---- below the surface -----------------------------------------------------------------

    def _encode(self, pixels: list[numpy.ndarray], rows: int) -> EncodedImages:
        self._batches.add(rows)
        shape = (rows, self.preprocess.height, self.preprocess.width, 3)
        batch = numpy.zeros(shape, numpy.uint8)
        for row, image in enumerate(pixels):
            batch[row] = image
        states = _encoded(
            self.family, self.graphdef, self.preprocess, self.dtype, self.params, batch
        )
        return EncodedImages(states, len(pixels))

    def _caption(self, encoded: EncodedImages, settings: Decoding) -> list[Caption]:
        # past its last text position the model has no embedding
        limit = min(settings.max_new_tokens, self.family.text_limit(self.config))
        settings = dataclasses.replace(settings, max_new_tokens=limit)
        tokens = self.family.token_ids(self.config)
        key = None
        if settings.do_sample:
            self.key, key = jax.random.split(self.key)
        found = generate(
            self.family, self.graphdef, self.params, encoded.states, settings, tokens,
            encoded.count, key,
        )  # fmt: skip
        ids, lengths, log_probs = (
            numpy.asarray(x)[: encoded.count].reshape(-1, *x.shape[2:]) for x in found
        )
        kept = [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]
        texts = self.tokenizer.batch_decode(kept, skip_special_tokens=True)
        scores = (log_probs.astype(float) / lengths).tolist()
        return [Caption(text.strip(), score) for text, score in zip(texts, scores, strict=True)]

    def _rows(self, count: int) -> int:
        """Rows to compute for so many images: a size that is compiled, if not far too large."""
        compiled = [rows for rows in self._batches if count <= rows <= 4 * count]
        if compiled:
            return min(compiled)
        return 1 << (count - 1).bit_length() if count <= 8 else -(-count // 8) * 8

    def _parts(self, encoded: EncodedImages, batch_size: int) -> list[EncodedImages]:
        if encoded.count <= batch_size:
            return [encoded]
        filling = jnp.pad(encoded.states, ((0, -len(encoded.states) % batch_size), (0, 0), (0, 0)))
        return [
            EncodedImages(
                filling[start : start + batch_size], min(batch_size, encoded.count - start)
            )
            for start in range(0, encoded.count, batch_size)
        ]


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _encoded(
    family: ModuleType,
    graphdef: Any,
    preprocess: Preprocessor,
    dtype: Any,
    params: Any,
    pixels: jax.Array,
) -> jax.Array:
    return family.encode(graphdef, params, normalised(pixels, preprocess), dtype)


@partial(jax.jit, static_argnums=(0, 1))
def _loss(
    family: ModuleType,
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


def decoding_defaults(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of its decoding, in our terms.

    From `generation_config.json`; without it from the model's config, where transformers 4 kept it.
    """
    file = folder / "generation_config.json"
    values = json.loads((file if file.is_file() else folder / "config.json").read_text("utf-8"))
    if not file.is_file():
        values = {**values.get("decoder", {}), **values}
    defaults = {
        name: values[name]
        for name in _DECODING
        if values.get(name) is not None and name != "num_return_sequences"
    }
    if defaults.get("top_k") == 50 and not defaults.get("do_sample"):
        defaults.pop("top_k")  # the library's default, not the checkpoint's choice
    if "max_new_tokens" not in defaults and values.get("max_length") not in (None, 20):
        defaults["max_new_tokens"] = max(1, values["max_length"] - 1)
    return defaults


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
