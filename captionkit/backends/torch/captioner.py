"""A torch model that is ready to caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers

from captionkit.backends.torch.batches import pad_captions
from captionkit.backends.torch.device import DTYPES, choose_device
from captionkit.backends.torch.families import family_of
from captionkit.backends.torch.generate import generate
from captionkit.backends.torch.loss import IGNORED, caption_loss
from captionkit.backends.torch.packed import pack_linears
from captionkit.backends.torch.processes import connect
from captionkit.backends.torch.quiet import quiet_transformers
from captionkit.backends.torch.weights import load_model
from captionkit.batch_limit import BatchLimit
from captionkit.caption_arguments import caption_lists, check_arguments, check_seeds
from captionkit.data.captions import encode_captions, frame
from captionkit.data.images import open_image
from captionkit.data.preprocess import Preprocessor
from captionkit.decode import decode_captions
from captionkit.decoding_defaults import decoding_defaults
from captionkit.errors import ConfigError
from captionkit.inputs import as_list, to_encode
from captionkit.models import load_tokenizer
from captionkit.prompt import encode_prompt
from captionkit.recipe import Decoding
from captionkit.types import Caption


@dataclass(frozen=True)
class EncodedImages:
    """Images made ready once, to be captioned and scored.

    pixels: `(batch, 3, height, width)` uint8, on the device. hidden_states: what the model makes
    of them before it sees any text, `(batch, ...)`; None where image and text go together.
    """

    pixels: torch.Tensor
    hidden_states: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice | torch.Tensor) -> EncodedImages:
        hidden = self.hidden_states
        return EncodedImages(self.pixels[rows], None if hidden is None else hidden[rows])


def load_captioner(
    checkpoint: Path,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> TorchCaptioner:
    """Load a checkpoint folder: weights as `dtype` (fp32, bf16, fp16; default fp32).

    device: as torch calls it (cpu, cuda:1, mps, ...); default: the best there is. Raises
    ConfigError for a device or dtype that there is not, and CheckpointError.
    """
    if dtype not in (None, *DTYPES):
        raise ConfigError(
            f"dtype={dtype!r} is not possible: it must be one of {', '.join(DTYPES)}."
        )
    connect()
    chosen = choose_device(device)
    if dtype == "fp16" and chosen.type == "cpu":
        raise ConfigError("dtype='fp16' needs a GPU. Use 'fp32' or 'bf16' on a CPU.")
    with quiet_transformers():
        model = load_model(checkpoint, trust_remote_code).to(chosen, DTYPES[dtype or "fp32"])
    preprocess = Preprocessor.from_checkpoint(checkpoint)
    preprocess.require_size(family_of(model.config.model_type).image_size(model.config), checkpoint)
    pack_linears(model)
    tokenizer = load_tokenizer(checkpoint, trust_remote_code)
    return TorchCaptioner(model, tokenizer, preprocess, checkpoint=checkpoint)


class TorchCaptioner:
    """Captions images with a torch model.

    model: a transformers model of a family that captionkit knows, on its device.
    tokenizer: its tokenizer; preprocess: its image preprocessing.
    autocast: the dtype to compute in, where it is not that of the weights.
    checkpoint: the folder that it was loaded from; its decoding settings are the defaults.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocess: Preprocessor,
        autocast: torch.dtype | None = None,
        checkpoint: Path | None = None,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.family = family_of(model.config.model_type)
        self.autocast = autocast
        self.checkpoint = checkpoint
        self.defaults: Mapping[str, Any] = decoding_defaults(checkpoint) if checkpoint else {}
        self._limit = BatchLimit(lambda: str(self.model.device), out_of_memory, free_memory)

    @property
    def facts(self) -> dict[str, Any]:
        """What a report says of the captioner."""
        return {
            "backend": "torch",
            "device": str(self.model.device),
            "parameters": self.model.num_parameters(),
            "versions": versions(),
        }

    def encode(self, images: Any) -> EncodedImages:
        """Decode and preprocess images once, and run the image encoder. Raises `ImageError`."""
        pixels = numpy.stack(
            [self.preprocess(open_image(image, allow_urls=True)) for image in to_encode(images)]
        )
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.model.device)
        parts = self._limit.run(
            "encode", len(batch), len(batch), lambda first, last, _: self._encode(batch[first:last])
        )
        return EncodedImages(batch, None if parts[0] is None else torch.cat(parts))

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
            on the images beside it. Without seeds the draws come from torch's global generator
            (`torch.manual_seed`), in the order of the batches. Nothing else depends on them.
        decoding: fields of `Decoding` (num_beams, max_new_tokens, ...); default: the checkpoint's.

        Returns one `Caption` an image, in order; with num_return_sequences=n, n in a row for each
        image, best first. Raises `ImageError` for an image that cannot be read.
        """
        settings = check_arguments(self.defaults, decoding, batch_size)
        sources = images if isinstance(images, EncodedImages) else as_list(images)
        numbers = check_seeds(seeds, len(sources))
        captions = []
        for first in range(0, len(sources), batch_size):
            chunk = sources[first : first + batch_size]
            captions += self._caption(
                chunk if isinstance(chunk, EncodedImages) else self.encode(chunk),
                settings,
                numbers and numbers[first : first + batch_size],
                token_probabilities,
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
        rows = torch.tensor(owners)
        limit = self.family.text_limit(self.model.config)
        ids = encode_captions(
            self.tokenizer, texts, max_tokens=limit, own_start=self.family.OWN_START
        )

        def part(first: int, last: int, _: int) -> tuple[float, int]:
            start_id = self.family.start_id(self.model)
            batch = pad_captions(ids[first:last], self.tokenizer.pad_token_id, start_id)
            labels = batch["labels"].to(encoded.pixels.device)
            logits = self._logits(encoded[rows[first:last]], batch)
            return float(caption_loss(logits, labels)), int((labels != IGNORED).sum())

        # no more captions at once than images
        parts = self._limit.run("loss", len(ids), len(encoded), part)
        return math.fsum(total for total, _ in parts), sum(count for _, count in parts)

    # ---- below the surface ---------------------------------------------------------------------

    @torch.inference_mode()
    def _encode(self, pixels: torch.Tensor) -> torch.Tensor | None:
        self.model.eval()
        with self._arithmetic():
            return self.family.encode(self.model, self._pixel_values(pixels))

    @torch.inference_mode()
    def _caption(
        self,
        encoded: EncodedImages,
        settings: Decoding,
        seeds: list[int] | None,
        token_probabilities: bool,
    ) -> list[Caption]:
        self.model.eval()
        limit = self.family.text_limit(self.model.config)
        prompt, settings = encode_prompt(self.tokenizer, settings, limit)
        prefix = [*self._start(), *prompt] if prompt else None

        def part(first: int, last: int, _: int) -> list[Caption]:
            chosen = encoded[first:last]
            with quiet_transformers(), self._arithmetic():
                found = generate(
                    self.family,
                    self.model,
                    self._pixel_values(chosen.pixels),
                    chosen.hidden_states,
                    settings,
                    seeds and seeds[first:last],
                    prefix,
                )
            return decode_captions(self.tokenizer, *found, token_probabilities, prompt)

        lanes = max(settings.num_beams, settings.num_return_sequences)
        parts = self._limit.run(("caption", lanes), len(encoded), len(encoded), part)
        return [caption for captions in parts for caption in captions]

    @torch.inference_mode()
    def _logits(self, encoded: EncodedImages, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.model.eval()
        device = encoded.pixels.device
        with self._arithmetic():
            return self.family.logits(
                self.model,
                self._pixel_values(encoded.pixels),
                batch["input_ids"].to(device),
                batch["attention_mask"].to(device),
                encoded.hidden_states,
            )

    def _start(self) -> list[int]:
        """The token that captions start from; a tokenizer may put it there itself."""
        start_id = self.family.start_id(self.model)
        return frame(self.tokenizer)[0] if start_id is None else [start_id]

    def _pixel_values(self, pixels: torch.Tensor) -> torch.Tensor:
        return normalised(pixels, self.preprocess, self.model.dtype)

    def _arithmetic(self) -> Any:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.autocast)


_NO_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: ")


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)
    )


def free_memory() -> None:
    """Give back what torch keeps of the memory of a failed attempt."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def versions() -> dict[str, str]:
    """The versions of the libraries that a result depends on."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def normalised(
    pixels: torch.Tensor, preprocess: Preprocessor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """uint8 `(batch, 3, height, width)` to what the image encoder expects, on the device."""
    mean = torch.tensor(preprocess.mean, device=pixels.device).view(1, -1, 1, 1)
    std = torch.tensor(preprocess.std, device=pixels.device).view(1, -1, 1, 1)
    return ((pixels.float() * preprocess.scale - mean) / std).to(dtype)
