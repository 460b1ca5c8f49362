"""Generation: greedy search, sampling and beam search, each one compiled loop.

The loops know of a model only what its family offers: `start_decoding` and `decode_step`. An image
has several lanes (beams, or samples) that share its keys and values. A loop ends when all captions
have; rows that only fill up a batch count as ended from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from captionkit.backends.flax.models.family import Family, Weights
from captionkit.recipe import Decoding

_NEVER = -1.0e9  # as good as impossible, and still a number


class Generated(NamedTuple):
    """Captions of a batch, `n` in a row for each image, best first.

    ids: `(batch, n, max_new_tokens)` without the start token, padded after the end token.
    lengths: `(batch, n)` tokens, the end token included. log_probs: `(batch, n, max_new_tokens)`,
    the model's own log-probability (nats) of each of these tokens, zero beyond them.
    """

    ids: jax.Array
    lengths: jax.Array
    log_probs: jax.Array


def generate(
    family: Family,
    graphdef: Any,
    weights: Weights,
    encoder_hidden_states: jax.Array,
    settings: Decoding,
    tokens: tuple[int, tuple[int, ...], int],
    count: int | None = None,
    keys: jax.Array | None = None,
    prompt: Sequence[int] = (),
) -> Generated:
    """Generate captions for encoded images, `(batch, image tokens, width)`.

    weights: of `family.weights`. tokens: (start, end tokens, padding). count: how many of the rows
    are images; the rest only fills the batch. keys: for sampling, `(batch, draws)` with a key for
    each caption, or one for all beams of an image: what is drawn depends on it alone. prompt: the
    tokens that every caption begins with, which are not among those returned.
    """
    batch = encoder_hidden_states.shape[0]
    loop = _one_by_one if settings.num_beams == 1 else _beam_search
    return loop(
        family, graphdef, weights, encoder_hidden_states, tokens,
        lanes=settings.num_return_sequences if settings.num_beams == 1 else settings.num_beams,
        kept=settings.num_return_sequences,
        length=settings.max_new_tokens,
        sampling=_Sampling(settings.top_k, settings.top_p < 1) if settings.do_sample else None,
        numbers=_Numbers(
            jnp.float32(settings.temperature), jnp.float32(settings.top_p),
            jnp.float32(settings.length_penalty), jnp.asarray(settings.early_stopping),
        ),
        count=jnp.int32(batch if count is None else count),
        keys=keys,
        known=jnp.asarray([tokens[0], *prompt], jnp.int32),
    )  # fmt: skip


def draws(settings: Decoding) -> int:
    """How many keys sampling takes for an image."""
    return settings.num_return_sequences if settings.num_beams == 1 else 1


class _Sampling(NamedTuple):
    """What of the filters is compiled in."""

    top_k: int
    top_p: bool


class _Numbers(NamedTuple):
    """Settings that may change without compiling anew."""

    temperature: jax.Array
    top_p: jax.Array
    length_penalty: jax.Array
    early_stopping: jax.Array


_compiled = partial(
    jax.jit, static_argnames=("family", "graphdef", "tokens", "lanes", "kept", "length", "sampling")
)


def _read_known(
    family: Family, graphdef: Any, weights: Weights, encoder_hidden_states: jax.Array, lanes: int,
    length: int, known: jax.Array,
) -> tuple[Any, Any, jax.Array]:  # fmt: skip
    """What decoding keeps, a cache with all known tokens in it but the last, and that.

    known: `(tokens,)`, the start token first. The last ones are `(batch, lanes)`.
    """
    count, shape = len(known), (encoder_hidden_states.shape[0], lanes)
    prepared, cache = family.start_decoding(
        graphdef, weights, encoder_hidden_states, lanes, length + count - 1
    )

    def read(position: jax.Array, cache: Any) -> Any:
        tokens = jnp.full(shape, known[position])
        return family.decode_step(graphdef, prepared, cache, tokens, position)[1]

    if count > 1:  # else nothing is compiled for it
        cache = jax.lax.fori_loop(0, count - 1, read, cache)
    return prepared, cache, jnp.full(shape, known[-1])


# ---- one token after the other ---------------------------------------------------------------


@_compiled
def _one_by_one(
    family: Family, graphdef: Any, weights: Weights, encoder_hidden_states: jax.Array,
    tokens: tuple[int, tuple[int, ...], int], *, lanes: int, kept: int, length: int,
    sampling: _Sampling | None, numbers: _Numbers, count: jax.Array, keys: jax.Array | None,
    known: jax.Array,
) -> Generated:  # fmt: skip
    """Greedy search, or with `sampling` a draw for each lane."""
    _, ends, pad = tokens
    batch, behind = encoder_hidden_states.shape[0], len(known) - 1
    prepared, cache, last = _read_known(
        family, graphdef, weights, encoder_hidden_states, lanes, length, known
    )

    class State(NamedTuple):
        position: jax.Array  # of the generated tokens
        last: jax.Array  # (batch, lanes)
        ended: jax.Array
        found: Generated
        cache: Any

    def step(state: State) -> State:
        logits, cache = family.decode_step(
            graphdef, prepared, state.cache, state.last, state.position + behind
        )
        logits = logits.astype(jnp.float32).reshape(batch, lanes, -1)
        if sampling is None:
            chosen = _first_of_the_largest(logits)
        else:
            # the largest after Gumbel noise is a draw
            noise = _noise(keys, state.position, logits.shape[2:])
            chosen = _first_of_the_largest(_filtered(logits, sampling, numbers) + noise)
        chosen_logits = jnp.take_along_axis(logits, chosen[..., None], -1)[..., 0]
        log_probs = chosen_logits - jax.nn.logsumexp(logits, -1)

        open_ = ~state.ended
        chosen = jnp.where(open_, chosen, pad).astype(jnp.int32)
        found = Generated(
            jax.lax.dynamic_update_index_in_dim(state.found.ids, chosen, state.position, 2),
            state.found.lengths + open_,
            jax.lax.dynamic_update_index_in_dim(
                state.found.log_probs, jnp.where(open_, log_probs, 0.0), state.position, 2
            ),
        )
        ended = state.ended | jnp.isin(chosen, jnp.asarray(ends))
        return State(state.position + 1, chosen, ended, found, cache)

    found = Generated(
        jnp.full((batch, lanes, length), pad, jnp.int32),
        jnp.zeros((batch, lanes), jnp.int32),
        jnp.zeros((batch, lanes, length)),
    )
    ended = jnp.broadcast_to(jnp.arange(batch)[:, None] >= count, (batch, lanes))
    first = State(jnp.int32(0), last, ended, found, cache)
    going_on = lambda s: (s.position < length) & ~jnp.all(s.ended)  # noqa: E731 (used once)
    found = jax.lax.while_loop(going_on, step, first).found
    if lanes == 1:
        return found
    best = jnp.argsort(-found.log_probs.sum(-1) / jnp.maximum(found.lengths, 1), axis=1)
    return jax.tree.map(lambda x: _take_lanes(x, best), found)


def _first_of_the_largest(x: jax.Array) -> jax.Array:
    """argmax over the last axis by two plain reductions, which CPUs do far faster than its one."""
    ids = jnp.arange(x.shape[-1])
    largest = jnp.where(x == x.max(-1, keepdims=True), ids, x.shape[-1] - 1)
    return largest.min(-1)


def _noise(keys: jax.Array, position: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Gumbel noise of a step, `(*keys.shape, *shape)`, each key's its own."""
    flat = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, position), shape))(
        keys.reshape(-1)
    )
    return flat.reshape(*keys.shape, *shape)


def _filtered(logits: jax.Array, sampling: _Sampling, numbers: _Numbers) -> jax.Array:
    """Tempered logits, -inf where top-k or top-p (Holtzman et al. 2019) rules a token out."""
    logits = logits / numbers.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, sampling.top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if sampling.top_p:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probs = jax.nn.softmax(ordered, -1)
        before = jnp.cumsum(probs, -1) - probs
        least = jnp.min(jnp.where(before < numbers.top_p, ordered, jnp.inf), -1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


# ---- beams -----------------------------------------------------------------------------------


class _Beams(NamedTuple):
    """Sequences of `lanes` beams, `(batch, lanes, ...)`.

    scores: sums of log-probabilities, those of finished captions divided by length ** penalty;
    when sampling they are of the tempered and filtered distribution. log_probs: the model's own,
    of each token.
    """

    scores: jax.Array
    ids: jax.Array
    lengths: jax.Array
    log_probs: jax.Array
    finished: jax.Array


@_compiled
def _beam_search(
    family: Family, graphdef: Any, weights: Weights, encoder_hidden_states: jax.Array,
    tokens: tuple[int, tuple[int, ...], int], *, lanes: int, kept: int, length: int,
    sampling: _Sampling | None, numbers: _Numbers, count: jax.Array, keys: jax.Array | None,
    known: jax.Array,
) -> Generated:  # fmt: skip
    """Beam search by the rules of transformers, token for token.

    Of (1 + end tokens) x beams candidates those that end a caption compete, by penalised score,
    with the finished ones if they are among the first `beams`; the best of the rest run on. An
    image is done when no running beam could beat its worst finished caption at today's length.
    """
    _, ends, pad = tokens
    batch, behind = encoder_hidden_states.shape[0], len(known) - 1
    wanted = max(2, 1 + len(ends)) * lanes
    prepared, cache, last = _read_known(
        family, graphdef, weights, encoder_hidden_states, lanes, length, known
    )

    class State(NamedTuple):
        position: jax.Array  # of the generated tokens
        last: jax.Array  # (batch, lanes)
        running: _Beams
        done: _Beams
        hopeful: jax.Array  # (batch,) whether running beams may still improve on the finished
        stuck: jax.Array  # whether every candidate has ended
        cache: Any

    def going_on(state: State) -> jax.Array:
        full = jnp.all(state.done.finished) & numbers.early_stopping
        return jnp.any(state.hopeful) & ~full & ~state.stuck & (state.position < length)

    def step(state: State) -> State:
        logits, cache = family.decode_step(
            graphdef, prepared, state.cache, state.last, state.position + behind
        )
        candidates, parents, chosen = _candidates(
            logits.astype(jnp.float32).reshape(batch, lanes, -1), state.running, state.position,
            wanted, sampling, numbers, keys,
        )  # fmt: skip
        ended = jnp.isin(chosen, jnp.asarray(ends)) | (state.position + 1 >= length)

        # the best that have not ended run on
        scores, order = jax.lax.top_k(candidates.scores + ended * _NEVER, lanes)
        running = jax.tree.map(lambda x: _take_lanes(x, order), candidates)._replace(scores=scores)
        parents, last = _take_lanes(parents, order), _take_lanes(chosen, order)

        # the best that have ended, of these and of earlier ones
        fresh = ended & (jnp.arange(ended.shape[1]) < lanes)
        penalty = candidates.lengths.astype(jnp.float32) ** numbers.length_penalty
        closed = numbers.early_stopping & jnp.all(state.done.finished, 1)
        barred = (closed | ~state.hopeful)[:, None] * _NEVER + ~fresh * _NEVER
        ending = candidates._replace(scores=candidates.scores / penalty + barred, finished=fresh)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), state.done, ending)
        _, order = jax.lax.top_k(both.scores, lanes)
        done = jax.tree.map(lambda x: _take_lanes(x, order), both)

        possible = running.scores[:, 0] / (state.position + 1.0) ** numbers.length_penalty
        worst = jnp.where(done.finished, done.scores.min(1, keepdims=True), _NEVER)
        hopeful = state.hopeful & jnp.any(possible[:, None] > worst, 1)
        flat = (parents + jnp.arange(batch)[:, None] * lanes).reshape(-1)
        cache = jax.tree.map(lambda x: x[flat], cache)
        return State(state.position + 1, last, running, done, hopeful, jnp.all(ended), cache)

    filler = jnp.arange(batch) >= count
    running = _Beams(
        scores=jnp.full((batch, lanes), _NEVER).at[:, 0].set(0.0),  # all lanes start the same
        ids=jnp.full((batch, lanes, length), pad, jnp.int32),
        lengths=jnp.zeros((batch, lanes), jnp.int32),
        log_probs=jnp.zeros((batch, lanes, length)),
        finished=jnp.zeros((batch, lanes), bool),
    )
    done = running._replace(
        scores=jnp.full((batch, lanes), _NEVER),
        finished=jnp.broadcast_to(filler[:, None], (batch, lanes)),
    )
    first = State(jnp.int32(0), last, running, done, ~filler, jnp.asarray(False), cache)
    done = jax.lax.while_loop(going_on, step, first).done
    return Generated(done.ids[:, :kept], done.lengths[:, :kept], done.log_probs[:, :kept])


def _candidates(
    logits: jax.Array, running: _Beams, position: jax.Array, wanted: int,
    sampling: _Sampling | None, numbers: _Numbers, keys: jax.Array | None,
) -> tuple[_Beams, jax.Array, jax.Array]:  # fmt: skip
    """The `wanted` best continuations of an image, the beams they continue, and their tokens."""
    batch, lanes, vocab = logits.shape
    norms = jax.nn.logsumexp(logits, -1, keepdims=True)
    scored, offsets = logits, running.scores[..., None] - norms
    if sampling is not None:
        # transformers tempers and filters log-probabilities without normalising them again
        scored = _filtered(logits - norms, sampling, numbers)
        offsets = running.scores[..., None]
    ranked = scored
    if keys is not None:
        # the largest of perturbed log-probabilities are draws without replacement (Gumbel top-k)
        ranked = scored + _noise(keys[:, 0], position, scored.shape[1:])

    # first within each beam, then among all: the vocabulary is gone through once
    share = min(wanted, vocab)
    best, ids = jax.lax.top_k(ranked, share)
    order = jax.lax.top_k((best + offsets).reshape(batch, -1), min(wanted, lanes * share))[1]
    parents, chosen = order // share, _take_lanes(ids.reshape(batch, -1), order)
    taken = jnp.take_along_axis(scored, ids, -1) + offsets
    own = jnp.take_along_axis(logits, ids, -1) - norms
    sequences = _take_lanes(running.ids, parents)
    candidates = _Beams(
        scores=_take_lanes(taken.reshape(batch, -1), order),
        ids=jax.lax.dynamic_update_index_in_dim(sequences, chosen, position, 2),
        lengths=jnp.full(chosen.shape, position + 1, jnp.int32),
        log_probs=jax.lax.dynamic_update_index_in_dim(
            _take_lanes(running.log_probs, parents),
            _take_lanes(own.reshape(batch, -1), order),
            position,
            2,
        ),
        finished=jnp.zeros(chosen.shape, bool),
    )
    return candidates, parents, chosen


def _take_lanes(x: jax.Array, lanes: jax.Array) -> jax.Array:
    """x: `(batch, lanes, ...)`; lanes: `(batch, chosen)` -> `(batch, chosen, ...)`."""
    return jnp.take_along_axis(x, lanes.reshape(*lanes.shape, *[1] * (x.ndim - 2)), 1)
