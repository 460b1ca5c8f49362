"""A model that is ready to caption: images to colours, beams, and the loss of captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captionkit.caption_arguments import check_arguments, check_seeds
from captionkit.data.captions import decoder_pairs, encode_captions
from captionkit.data.images import open_image
from captionkit.decode import decode_captions
from captionkit.decoding_defaults import decoding_defaults
from captionkit.errors import ConfigError
from captionkit.inputs import as_list
from captionkit.prompt import encode_prompt
from captionkit.recipe import Decoding
from captionkit.types import Caption
from captionkit_colours.model import Model, log_softmax


@dataclass(frozen=True)
class EncodedImages:
    """What `encode` gives and `caption` and `loss` take: `(images, cells)`."""

    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.colours)


def load_captioner(checkpoint: Path, trust_remote_code: bool = False) -> ColoursCaptioner:
    """Load a checkpoint folder. Raises CheckpointError."""
    model = Model.open(checkpoint, trust_remote_code=trust_remote_code)
    return ColoursCaptioner(model, checkpoint)


class ColoursCaptioner:
    """Captions images. checkpoint: where it was loaded from; its decoding is the default."""

    def __init__(self, model: Model, checkpoint: Path | None = None):
        self.model = model
        self.checkpoint = checkpoint
        self.defaults: Mapping[str, Any] = decoding_defaults(checkpoint) if checkpoint else {}

    @property
    def facts(self) -> dict[str, Any]:
        """What a report says of the captioner."""
        count = sum(tensor.size for tensor in self.model.tensors.values())
        versions = {"numpy": np.__version__}
        return {"backend": "colours", "device": "cpu", "parameters": count, "versions": versions}

    def encode(self, images: Sequence[Any]) -> EncodedImages:
        """Decode images once. Raises ImageError."""
        model = self.model
        read = [model.preprocess(open_image(image, allow_urls=True)) for image in images]
        empty = np.zeros((0, 3 * model.config.grid**2), np.float32)
        return EncodedImages(np.stack([model.colours(p) for p in read]) if read else empty)

    def caption(
        self,
        images: Any,
        *,
        batch_size: int = 32,
        token_probabilities: bool = False,
        seeds: Sequence[int] | None = None,
        **decoding: Any,
    ) -> list[Caption]:
        """Caption one image or many, by greedy search or beams; see `Captioner`."""
        settings = check_arguments(self.defaults, decoding, batch_size)
        if settings.do_sample:
            raise ConfigError("The backend 'colours' does not sample. Leave do_sample out.")
        encoded = self._encoded(images)
        check_seeds(seeds, len(encoded))
        limit = self.model.config.positions
        prompt, settings = encode_prompt(self.model.tokenizer, settings, limit)
        ids, logs = [], []
        for colours in encoded.colours:  # one by one: 48 numbers are no work
            for found in beam_search(self.model, colours, prompt, settings):
                ids.append(found.ids)
                logs.append(found.logs)
        return decode_captions(self.model.tokenizer, ids, logs, token_probabilities, prompt)

    def loss(self, images: Any, captions: Sequence[str | Sequence[str]]) -> tuple[float, int]:
        """Negative log-likelihood summed over target tokens, and their number."""
        total, count = [], 0
        for colours, texts in zip(self._encoded(images).colours, captions, strict=True):
            many = [texts] if isinstance(texts, str) else list(texts)
            limit = self.model.config.positions
            for ids in encode_captions(self.model.tokenizer, many, limit=limit):
                inputs, targets = decoder_pairs(ids, self.model.start)
                log_probs = log_softmax(self.model.logits(colours[None], np.array([inputs]))[0])
                total.append(-float(log_probs[np.arange(len(targets)), targets].sum()))
                count += len(targets)
        return math.fsum(total), count

    def _encoded(self, images: Any) -> EncodedImages:
        return images if isinstance(images, EncodedImages) else self.encode(as_list(images))


@dataclass(frozen=True)
class _Hypothesis:
    """Token ids behind the prompt, up to and with the end token, and their log-probabilities."""

    ids: tuple[int, ...] = ()
    logs: tuple[float, ...] = ()

    def rank(self, length_penalty: float) -> float:
        return math.fsum(self.logs) / len(self.logs) ** length_penalty


def beam_search(
    model: Model, colours: np.ndarray, prompt: Sequence[int], settings: Decoding
) -> list[_Hypothesis]:
    """The best captions of one image, best first; with one beam this is greedy search."""
    beams, penalty = settings.num_beams, settings.length_penalty
    running, finished = [_Hypothesis()], []
    for length in range(1, settings.max_new_tokens + 1):
        inputs = np.array([[model.start, *prompt, *one.ids] for one in running])
        rows = np.repeat(colours[None], len(running), axis=0)
        log_probs = log_softmax(model.logits(rows, inputs)[:, -1])
        totals = log_probs + np.array([[math.fsum(one.logs)] for one in running])
        # of twice as many candidates at most one a beam ends, so enough of them go on
        best = np.argsort(-totals, axis=None, kind="stable")[: 2 * beams]
        grown = []
        for place, flat in enumerate(best):
            row, token = divmod(int(flat), log_probs.shape[1])
            one = running[row]
            new = _Hypothesis((*one.ids, token), (*one.logs, float(log_probs[row, token])))
            if token != model.end:
                grown.append(new)
            elif place < beams:
                finished.append(new)
        running = grown[:beams]
        finished = sorted(finished, key=lambda one: -one.rank(penalty))[:beams]
        if len(finished) == beams:
            hope = running[0].rank(penalty) if penalty <= 0 else (
                math.fsum(running[0].logs) / settings.max_new_tokens**penalty
            )  # fmt: skip
            if settings.early_stopping or beams == 1 or finished[-1].rank(penalty) >= hope:
                break
        if length == settings.max_new_tokens:
            finished += running  # cut off, without an end
    finished.sort(key=lambda one: -one.rank(penalty))
    return finished[: settings.num_return_sequences]
