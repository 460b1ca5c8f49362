"""A torch model that is ready to caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
import transformers
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from captionkit.backends.torch.batches import pad_captions
from captionkit.backends.torch.device import DTYPES, choose_device
from captionkit.backends.torch.families import family_of
from captionkit.backends.torch.loss import IGNORED, caption_loss
from captionkit.backends.torch.quiet import quiet_transformers
from captionkit.backends.torch.weights import load_model
from captionkit.data.captions import encode_captions
from captionkit.data.images import open_image
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ConfigError
from captionkit.inputs import as_list
from captionkit.models import load_tokenizer
from captionkit.recipe import Decoding
from captionkit.settings import unknown_setting
from captionkit.types import Caption

if TYPE_CHECKING:
    from captionkit.types import ImageSource


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
    """Load a checkpoint folder: weights as `dtype` (fp32, bf16, fp16; default fp32)."""
    if dtype not in (None, *DTYPES):
        raise ConfigError(
            f"dtype={dtype!r} is not possible: it must be one of {', '.join(DTYPES)}."
        )
    chosen = choose_device(device)
    if dtype == "fp16" and chosen.type == "cpu":
        raise ConfigError("dtype='fp16' needs a GPU. Use 'fp32' or 'bf16' on a CPU.")
    with quiet_transformers():
        model = load_model(checkpoint, trust_remote_code).to(chosen, DTYPES[dtype or "fp32"])
    preprocess = Preprocessor.from_checkpoint(checkpoint)
    captioner = TorchCaptioner(model, load_tokenizer(checkpoint, trust_remote_code), preprocess)
    captioner.checkpoint = checkpoint
    return captioner


class TorchCaptioner:
    """Captions images with a torch model.

    model: a transformers model of a family that captionkit knows, on its device.
    tokenizer: its tokenizer; preprocess: its image preprocessing.
    autocast: the dtype to compute in, where it is not that of the weights.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocess: Preprocessor,
        autocast: torch.dtype | None = None,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.family = family_of(model.config.model_type)
        self.autocast = autocast
        self.checkpoint: Path | None = None  # the folder that it was loaded from
        self.defaults = _decoding_defaults(model.generation_config)

    @property
    def facts(self) -> dict[str, Any]:
        """What a report says of the captioner."""
        return {
            "backend": "torch",
            "device": str(self.model.device),
            "parameters": self.model.num_parameters(),
            "versions": versions(),
        }

    def encode(self, images: Sequence[ImageSource]) -> EncodedImages:
        """Decode and preprocess images once, and run the image encoder. Raises `ImageError`."""
        pixels = numpy.stack(
            [self.preprocess(open_image(image, allow_urls=True)) for image in images]
        )
        device = next(self.model.parameters()).device
        return self._encode(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))

    def caption(self, images: Any, *, batch_size: int = 32, **decoding: Any) -> list[Caption]:
        """Caption one image or many.

        images: a path, URL, PIL image, array or bytes, a list of them, or what `encode` gave.
        batch_size: images captioned at once.
        decoding: fields of `Decoding` (num_beams, max_new_tokens, ...); default: the checkpoint's.

        Returns one `Caption` an image, in order; with num_return_sequences=n, n in a row for each
        image, best first. Raises `ImageError` for an image that cannot be read.
        """
        for name in decoding:
            if name not in {field.name for field in fields(Decoding)}:
                raise unknown_setting(name, [field.name for field in fields(Decoding)])
        settings = Decoding(**{**self.defaults, **decoding})
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} is not possible: it must be at least 1.")
        if not isinstance(images, EncodedImages):
            sources = as_list(images)
            chunks = [sources[i : i + batch_size] for i in range(0, len(sources), batch_size)]
            return [c for chunk in chunks for c in self._caption(self.encode(chunk), settings)]
        parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
        return [c for part in parts for c in self._caption(part, settings)]

    def loss(self, images: Any, captions: Sequence[str | Sequence[str]]) -> tuple[float, int]:
        """Teacher-forced negative log-likelihood (nats), summed over target tokens; their number.

        captions: for each image one caption or several, each of which counts. Those longer than
            the model allows are cut to what it does.
        """
        encoded = images if isinstance(images, EncodedImages) else self.encode(as_list(images))
        many = [[c] if isinstance(c, str) else list(c) for c in captions]
        if len(many) != len(encoded):
            raise ConfigError(f"There are {len(encoded)} images and captions for {len(many)}.")
        rows = torch.tensor([row for row, texts in enumerate(many) for _ in texts])
        limit = self.family.text_limit(self.model.config)
        ids = encode_captions(
            self.tokenizer, [text for texts in many for text in texts], max_tokens=limit
        )
        total, count = 0.0, 0
        for start in range(0, len(ids), len(encoded)):  # no more rows at once than images
            chosen = slice(start, start + len(encoded))
            start_id = self.family.start_id(self.model)
            batch = pad_captions(ids[chosen], self.tokenizer.pad_token_id, start_id)
            labels = batch["labels"].to(encoded.pixels.device)
            logits = self._logits(encoded[rows[chosen]], batch)
            total += float(caption_loss(logits, labels))
            count += int((labels != IGNORED).sum())
        return total, count

    # ---- below the surface ---------------------------------------------------------------------

    @torch.inference_mode()
    def _encode(self, pixels: torch.Tensor) -> EncodedImages:
        self.model.eval()
        with self._arithmetic():
            return EncodedImages(pixels, self.family.encode(self.model, self._pixel_values(pixels)))

    @torch.inference_mode()
    def _caption(self, encoded: EncodedImages, settings: Decoding) -> list[Caption]:
        self.model.eval()
        recorder = TokenLogProbs() if settings.num_beams == 1 else None
        with quiet_transformers(), self._arithmetic():
            output = self.family.generate(
                self.model,
                self._pixel_values(encoded.pixels),
                encoded.hidden_states,
                generation_config=self._generation_config(settings),
                logits_processor=LogitsProcessorList([recorder] if recorder else []),
            )
        ids = output.sequences.cpu()
        generated = generated_mask(ids, self._end_ids())
        if recorder:
            log_probs = recorder.finish(output.sequences).cpu()
        else:
            log_probs = self._teacher_forced(encoded, ids, generated, settings)
        scores = (log_probs * generated).sum(1) / generated.sum(1)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            Caption(text.strip(), score) for text, score in zip(texts, scores.tolist(), strict=True)
        ]

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

    def _teacher_forced(
        self,
        encoded: EncodedImages,
        ids: torch.Tensor,
        generated: torch.Tensor,
        settings: Decoding,
    ) -> torch.Tensor:
        """Log-probabilities of generated tokens, `(sequences, length - 1)`, by a forward pass."""
        repeats = len(ids) // len(encoded)
        kept = torch.cat([torch.ones(len(ids), 1, dtype=torch.bool), generated], 1)
        inputs = torch.where(kept, ids, self.tokenizer.pad_token_id)[:, :-1]
        batch = {"input_ids": inputs, "attention_mask": kept[:, :-1].long()}
        result = []
        for start in range(0, len(ids), len(encoded)):
            rows = torch.arange(start, start + len(encoded)) // repeats
            chosen = slice(start, start + len(encoded))
            part = {name: tensor[chosen] for name, tensor in batch.items()}
            log_probs = self._logits(encoded[rows], part).float().log_softmax(-1).cpu()
            result.append(log_probs.gather(-1, ids[chosen, 1:].unsqueeze(-1)).squeeze(-1))
        return torch.cat(result)

    def _pixel_values(self, pixels: torch.Tensor) -> torch.Tensor:
        return normalised(pixels, self.preprocess, self.model.dtype)

    def _arithmetic(self) -> Any:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.autocast)

    def _end_ids(self) -> torch.Tensor:
        ends = self.model.generation_config.eos_token_id
        return torch.tensor(ends if isinstance(ends, list) else [ends])

    def _generation_config(self, settings: Decoding) -> GenerationConfig:
        own = self.model.generation_config
        chosen: dict[str, Any] = {
            # past its last text position the model has no embedding
            "max_new_tokens": min(
                settings.max_new_tokens, self.family.text_limit(self.model.config)
            ),
            "num_beams": settings.num_beams,
            "do_sample": settings.do_sample,
            "num_return_sequences": settings.num_return_sequences,
            "return_dict_in_generate": True,
        }
        if settings.num_beams > 1:
            chosen |= {
                "length_penalty": settings.length_penalty,
                "early_stopping": settings.early_stopping,
            }
        if settings.do_sample:
            chosen |= {
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "top_k": settings.top_k,
            }
        tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        return GenerationConfig(**chosen, **{name: getattr(own, name) for name in tokens})


class TokenLogProbs(LogitsProcessor):
    """Records the model's own log-probability of every token that greedy search or sampling took.

    It runs before the processors that sampling adds, so the scores are those of the model, and it
    keeps two numbers a token rather than a row of the vocabulary.
    """

    def __init__(self) -> None:
        self.previous: torch.Tensor | None = None
        self.taken: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note the last token under the distribution before it; pass the scores on."""
        self._take(input_ids[:, -1])
        self.previous = scores.float().log_softmax(-1)
        return scores

    def finish(self, sequences: torch.Tensor) -> torch.Tensor:
        """`(batch, generated tokens)`: the log-probability of each."""
        self._take(sequences[:, -1])
        return torch.stack(self.taken, 1)

    def _take(self, tokens: torch.Tensor) -> None:
        if self.previous is not None:
            self.taken.append(self.previous.gather(-1, tokens.unsqueeze(-1)).squeeze(-1))


def generated_mask(ids: torch.Tensor, end_ids: torch.Tensor) -> torch.Tensor:
    """True at each generated token up to and with the first end token, `(batch, length - 1)`.

    ids: `(batch, length)` with the start token in front.
    """
    ended = torch.isin(ids[:, 1:], end_ids)
    return (ended.cumsum(1) - ended.long()) == 0


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


def _decoding_defaults(config: GenerationConfig) -> dict[str, Any]:
    """What the checkpoint says of its decoding, in our terms."""
    defaults = {}
    for field in fields(Decoding):
        value = getattr(config, field.name, None)
        if value is not None and field.name != "num_return_sequences":
            defaults[field.name] = value
    if defaults.get("top_k") == 50 and not defaults.get("do_sample"):
        defaults.pop("top_k")  # the library's default, not the checkpoint's choice
    if "max_new_tokens" not in defaults and config.max_length not in (None, 20):
        defaults["max_new_tokens"] = max(1, config.max_length - 1)
    if not math.isfinite(defaults.get("length_penalty", 1.0)):
        defaults.pop("length_penalty")
    return defaults
