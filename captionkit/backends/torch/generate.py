"""Generation by transformers, with the model's own probability of every token."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from captionkit.caption_arguments import draw_seed
from captionkit.recipe import Decoding


class Generated(NamedTuple):
    """Captions of a batch, `num_return_sequences` in a row for each image, best first.

    ids: by caption the tokens without the start token, up to and with the end token.
    log_probs: the model's own log-probability (nats) of each.
    """

    ids: list[list[int]]
    log_probs: list[list[float]]


class _Images(NamedTuple):
    """What captions are generated from: `(images, ...)`, see `Family.generate`."""

    pixel_values: torch.Tensor
    hidden_states: torch.Tensor | None
    prefix: torch.Tensor | None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> _Images:
        return _Images(*(None if x is None else change(x) for x in self))

    @property
    def known(self) -> int:
        """Tokens that a sequence has before its last known one."""
        return 0 if self.prefix is None else self.prefix.shape[1] - 1


def generate(
    family: ModuleType,
    model: Any,
    pixel_values: torch.Tensor,
    hidden_states: torch.Tensor | None,
    settings: Decoding,
    seeds: Sequence[int] | None = None,
    prefix: Sequence[int] | None = None,
) -> Generated:
    """Generate captions for images, `(batch, channels, height, width)` and what `encode` made.

    seeds: one an image, which sampling then depends on alone; else it draws from torch's global
    generator. prefix: start token and prompt; None: the model's own start token alone.
    """
    images = _Images(pixel_values, hidden_states, None)
    if prefix is not None:
        first = torch.tensor([prefix], device=pixel_values.device)
        images = images._replace(prefix=first.repeat(len(pixel_values), 1))
    if settings.do_sample and seeds is not None:
        if settings.num_beams > 1:
            return _seeded_beams(family, model, images, settings, seeds)
        ids, log_probs = _seeded(family, model, images, settings, seeds)
    else:
        ids, log_probs = _search(family, model, images, settings)
    found = _up_to_the_end(ids, log_probs, _end_ids(model))
    if settings.do_sample and settings.num_beams == 1:
        return _best_first(found, settings.num_return_sequences)
    return found


def _search(
    family: ModuleType, model: Any, images: _Images, settings: Decoding
) -> tuple[torch.Tensor, torch.Tensor]:
    """As transformers searches and draws: ids `(captions, length)`, log-probs one less long.

    The first id is the last of those that were known.
    """
    recorder = TokenLogProbs()
    # beams are reordered after a processor has seen them
    processors = [recorder] if settings.num_beams == 1 else []
    with _unset_generation_config(model) as tokens:
        ids = family.generate(
            model, *images,
            generation_config=GenerationConfig(**_settings(settings), **tokens),
            logits_processor=LogitsProcessorList(processors),
        ).sequences  # fmt: skip
    if processors:
        return ids[:, images.known :], recorder.finish(ids)
    log_probs = _teacher_forced(family, model, images, ids)
    return ids[:, images.known :], log_probs[:, images.known :]


def _seeded(
    family: ModuleType, model: Any, images: _Images, settings: Decoding, seeds: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw each caption from a generator of its own.

    What transformers takes is the largest score, after the filters of sampling and the noise that
    makes it a draw: all batched, and still no row depends on another.
    """
    lanes, device = settings.num_return_sequences, images.pixel_values.device
    recorder = TokenLogProbs()
    draws = [
        torch.Generator(device).manual_seed(draw_seed(seed, lane))
        for seed in seeds
        for lane in range(lanes)
    ]
    processors = [recorder, *_filters(settings), SeededDraw(draws)]
    if lanes > 1:
        images = images.map(lambda x: x.repeat_interleave(lanes, 0))
    chosen = _settings(settings) | {"do_sample": False, "num_return_sequences": 1}
    with _unset_generation_config(model) as tokens:
        ids = family.generate(
            model, *images,
            generation_config=GenerationConfig(
                **{k: v for k, v in chosen.items() if k not in _FILTERS}, **tokens
            ),
            logits_processor=LogitsProcessorList(processors),
        ).sequences  # fmt: skip
    return ids[:, images.known :], recorder.finish(ids)


def _seeded_beams(
    family: ModuleType, model: Any, images: _Images, settings: Decoding, seeds: Sequence[int]
) -> Generated:
    """Beams that are drawn take their draws from the global generator: image by image."""
    device, found = images.pixel_values.device, Generated([], [])
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        for row, seed in enumerate(seeds):
            torch.manual_seed(draw_seed(seed, 0))
            one = images.map(operator.itemgetter(slice(row, row + 1)))
            ids, log_probs = _search(family, model, one, settings)
            kept = _up_to_the_end(ids, log_probs, _end_ids(model))
            found.ids.extend(kept.ids)
            found.log_probs.extend(kept.log_probs)
    return found


# ---- what transformers is told -----------------------------------------------------------------

_FILTERS = ("temperature", "top_p", "top_k")


def _settings(settings: Decoding) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "max_new_tokens": settings.max_new_tokens,
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
        chosen |= {name: getattr(settings, name) for name in _FILTERS}
    return chosen


def _filters(settings: Decoding) -> list[LogitsProcessor]:
    """The filters of sampling in transformers' order, only those that change something."""
    filters: list[LogitsProcessor] = []
    if settings.temperature != 1.0:
        filters.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k > 0:
        filters.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        filters.append(TopPLogitsWarper(settings.top_p))
    return filters


@contextmanager
def _unset_generation_config(model: Any) -> Iterator[dict[str, Any]]:
    """Give the special tokens of the model's own generation config, and take it off the model.

    transformers would fill in from it whatever `Decoding` has no field for, and so change the
    distribution whose probabilities we give.
    """
    own = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    tokens = {name: getattr(own, name) for name in names}
    model.generation_config = GenerationConfig(**tokens)
    try:
        yield tokens
    finally:
        model.generation_config = own


# ---- log-probabilities -------------------------------------------------------------------------


class TokenLogProbs(LogitsProcessor):
    """Records the model's own log-probability of every token that greedy search or sampling took.

    It runs before the processors that sampling adds, so the scores are those of the model, and it
    keeps one number a token rather than a row of the vocabulary.
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


class SeededDraw(LogitsProcessor):
    """Adds Gumbel noise, which makes the largest score a draw from their softmax.

    (Maddison, Tarlow and Minka 2014, arXiv:1411.0030.) Each row takes its noise, a number for
    each word at each step, from its own generator.
    """

    def __init__(self, generators: Sequence[torch.Generator]):
        self.generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores: `(batch, vocab)`, of as many rows as there are generators."""
        waits = torch.empty(scores.shape, device=scores.device)
        for row, generator in zip(waits, self.generators, strict=True):
            row.exponential_(generator=generator)
        smallest = torch.finfo(waits.dtype).tiny
        return scores.float() - waits.clamp_min_(smallest).log_()


def _teacher_forced(
    family: ModuleType, model: Any, images: _Images, ids: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of the tokens of captions, `(captions, length - 1)`, by a forward pass.

    As many captions at once as there are images.
    """
    count = len(images.pixel_values)
    generated = generated_mask(ids, _end_ids(model).to(ids.device))
    kept = torch.cat([torch.ones_like(ids[:, :1], dtype=torch.bool), generated], 1)
    result = []
    for start in range(0, len(ids), count):
        chosen = slice(start, start + count)
        rows = torch.arange(start, start + count, device=ids.device) // (len(ids) // count)
        hidden_states = images.hidden_states
        logits = family.logits(
            model,
            images.pixel_values[rows],
            # after the end any token will do, where the mask lets none look
            ids[chosen, :-1],
            kept[chosen, :-1].long(),
            None if hidden_states is None else hidden_states[rows],
        )
        log_probs = logits.float().log_softmax(-1)
        result.append(log_probs.gather(-1, ids[chosen, 1:].unsqueeze(-1)).squeeze(-1))
    return torch.cat(result)


# ---- captions ----------------------------------------------------------------------------------


def _end_ids(model: Any) -> torch.Tensor:
    """The tokens that end a caption, `(ends,)`; there may be none."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return torch.tensor(ends, dtype=torch.long)


def generated_mask(ids: torch.Tensor, end_ids: torch.Tensor) -> torch.Tensor:
    """True at each generated token up to and with the first end token, `(batch, length - 1)`.

    ids: `(batch, length)` with the start token in front.
    """
    ended = torch.isin(ids[:, 1:], end_ids)
    return (ended.cumsum(1) - ended.long()) == 0


def _up_to_the_end(ids: torch.Tensor, log_probs: torch.Tensor, end_ids: torch.Tensor) -> Generated:
    ids = ids.cpu()
    lengths = generated_mask(ids, end_ids).sum(1).tolist()
    return Generated(
        [row[1 : 1 + length] for row, length in zip(ids.tolist(), lengths, strict=True)],
        [row[:length] for row, length in zip(log_probs.tolist(), lengths, strict=True)],
    )


def _best_first(found: Generated, lanes: int) -> Generated:
    """Each image's captions in the order of their scores."""
    means = [sum(row) / len(row) for row in found.log_probs]
    order = sorted(range(len(means)), key=lambda i: (i // lanes, -means[i]))
    return Generated([found.ids[i] for i in order], [found.log_probs[i] for i in order])
