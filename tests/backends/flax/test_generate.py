"""Generation against searches by brute force over the model's own distribution."""

from __future__ import annotations

import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from captionkit.backends.flax import generate as generation
from captionkit.backends.flax.generate import generate
from captionkit.backends.flax.models import family_of
from captionkit.recipe import Decoding

FAMILY = family_of("vision-encoder-decoder")


@pytest.fixture(scope="module")
def model(make, tmp_path_factory):
    """(config, graphdef, params, states) of a model with six words, the last of which ends."""
    folder = tmp_path_factory.mktemp("six-words")
    config = make.config(
        {"image_size": 8, "num_hidden_layers": 1},
        {"vocab_size": 6, "n_embd": 12, "bos_token_id": 1, "eos_token_id": 5},
        decoder_start_token_id=1, eos_token_id=5,
    )  # fmt: skip
    make.checkpoint(folder, config, make.tensors(make.shapes(config), seed=4))
    config = FAMILY.config_of(folder)
    graphdef, params = FAMILY.abstract(config)[0], FAMILY.load_params(folder, config)
    pixels = np.random.default_rng(0).normal(size=(3, 8, 8, 3))
    return config, graphdef, params, FAMILY.encode(graphdef, params, pixels)


@pytest.fixture(scope="module")
def log_probs(model):
    """image, words so far -> log-probabilities of the next word, each prefix computed once."""
    _, graphdef, params, states = model
    decode = jax.jit(FAMILY.decode, static_argnums=0)
    prefixes = np.array([[1, *p] for p in itertools.product(range(6), repeat=3)])
    tables = []
    for image in range(3):
        repeated = np.repeat(np.asarray(states[image : image + 1]), len(prefixes), 0)
        logits = decode(graphdef, params, repeated, prefixes, None)
        tables.append(np.asarray(jax.nn.log_softmax(logits.astype(np.float32))))

    def lookup(image, words):
        padded = [*words, 0, 0, 0][:3]
        row = int("".join(map(str, padded)), 6)
        return tables[image][row, len(words)]

    return lookup


def sequences(length):
    """All captions: those that end, and those that are cut off at the length."""
    for n in range(1, length + 1):
        for words in itertools.product(range(5), repeat=n - 1):
            yield (*words, 5)
    yield from itertools.product(range(5), repeat=length)


def total(log_probs, image, ids):
    return sum(log_probs(image, ids[:t])[ids[t]] for t in range(len(ids)))


def run(model, key=None, count=None, **settings):
    config, graphdef, params, states = model
    tokens = FAMILY.token_ids(config)
    settings = Decoding(**settings)
    keys = None if key is None else jax.random.split(key, (3, generation.draws(settings)))
    weights = FAMILY.weights(graphdef, params)
    found = generate(FAMILY, graphdef, weights, states, settings, tokens, count, keys)
    return jax.tree.map(np.asarray, found)


def steps_of(log_probs, image, ids):
    return [log_probs(image, ids[:t])[ids[t]] for t in range(len(ids))]


def check_log_probs(found, log_probs):
    """Of every token, as the whole model gives them; nothing beyond the last."""
    for image, captions in enumerate(words_of(found)):
        for ids, steps in zip(captions, found.log_probs[image]):
            np.testing.assert_allclose(
                steps[: len(ids)], steps_of(log_probs, image, ids), atol=1e-5
            )
            assert (steps[len(ids) :] == 0).all()


def words_of(found):
    return [
        [tuple(ids[:n].tolist()) for ids, n in zip(rows, lengths)]
        for rows, lengths in zip(found.ids, found.lengths)
    ]


def test_greedy_takes_the_likeliest_word_and_scores_it(model, log_probs):
    found = run(model, max_new_tokens=4)
    check_log_probs(found, log_probs)
    for image, (ids,) in enumerate(words_of(found)):
        expected = []
        while len(expected) < 4 and expected[-1:] != [5]:
            expected.append(int(log_probs(image, expected).argmax()))
        assert list(ids) == expected
        assert (found.ids[image, 0, len(ids) :] == 0).all()  # padding


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
def test_beams_as_many_as_there_are_captions_find_the_best(model, log_probs, length_penalty):
    found = run(
        model, num_beams=128, max_new_tokens=3, length_penalty=length_penalty,
        num_return_sequences=5,
    )  # fmt: skip
    check_log_probs(found, log_probs)
    for image, captions in enumerate(words_of(found)):
        scores = {
            ids: total(log_probs, image, ids) / len(ids) ** length_penalty for ids in sequences(3)
        }
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:5]
        # the search stops where today's length allows no better, which favours short captions
        if length_penalty == 0:
            assert captions == best
        assert scores[captions[0]] >= max(s for ids, s in scores.items() if len(ids) == 3)
        assert [scores[ids] for ids in captions] == sorted(
            (scores[ids] for ids in captions), reverse=True
        )


def draws(model, keys, **settings):
    return [words_of(run(model, key=jax.random.key(k), do_sample=True, **settings)) for k in keys]


def test_sampling_draws_from_the_models_distribution(model, log_probs):
    lots = draws(model, range(8), max_new_tokens=1, num_return_sequences=500)
    for image in range(3):
        counts = Counter(ids[0] for lot in lots for ids in lot[image])
        expected = np.exp(log_probs(image, ()))
        for word in range(6):  # six standard deviations of 4000 draws
            slack = 6 * (expected[word] * (1 - expected[word]) / 4000) ** 0.5
            assert abs(counts[word] / 4000 - expected[word]) <= slack + 1e-9


@pytest.mark.parametrize("settings", [{"top_k": 2}, {"top_p": 0.6}, {"temperature": 0.5}])
def test_filters_change_the_distribution_as_they_say(model, log_probs, settings):
    lots = draws(model, range(4), max_new_tokens=1, num_return_sequences=500, **settings)
    for image in range(3):
        counts = Counter(ids[0] for lot in lots for ids in lot[image])
        probs = np.exp(log_probs(image, ()))
        order = np.argsort(-probs)
        kept = order
        if "top_k" in settings:
            kept = order[:2]
        if "top_p" in settings:
            kept = order[: int(np.searchsorted(probs[order].cumsum(), 0.6)) + 1]
        allowed = np.zeros(6)
        allowed[kept] = probs[kept] ** (1 / settings.get("temperature", 1.0))
        allowed /= allowed.sum()
        for word in range(6):
            slack = 6 * (allowed[word] * (1 - allowed[word]) / 2000) ** 0.5
            assert abs(counts[word] / 2000 - allowed[word]) <= slack + 1e-9, word


def test_samples_are_seeded_scored_by_the_model_and_best_first(model, log_probs):
    settings = {"max_new_tokens": 4, "num_return_sequences": 6, "temperature": 2.0, "top_k": 4}
    first = run(model, key=jax.random.key(1), do_sample=True, **settings)
    again = run(model, key=jax.random.key(1), do_sample=True, **settings)
    other = run(model, key=jax.random.key(2), do_sample=True, **settings)
    assert words_of(first) == words_of(again) != words_of(other)
    check_log_probs(first, log_probs)
    for image, captions in enumerate(words_of(first)):
        expected = [total(log_probs, image, ids) for ids in captions]
        means = [score / len(ids) for score, ids in zip(expected, captions)]
        assert means == sorted(means, reverse=True)
        assert len(set(captions)) > 1


def test_sampled_beams_differ_from_each_other_and_are_scored_by_the_model(model, log_probs):
    settings = {"num_beams": 4, "max_new_tokens": 3, "num_return_sequences": 4, "temperature": 1.5}
    found = run(model, key=jax.random.key(0), do_sample=True, **settings)
    seen = set()
    for captions in words_of(found):
        assert len(set(captions)) == 4  # drawn without replacement
        seen.update(captions)
    check_log_probs(found, log_probs)
    other = run(model, key=jax.random.key(1), do_sample=True, **settings)
    assert words_of(other) != words_of(found)


def test_rows_that_fill_the_batch_do_not_keep_the_loop_going(model):
    for settings in ({"max_new_tokens": 4}, {"max_new_tokens": 4, "num_beams": 3}):
        whole, part = words_of(run(model, **settings)), run(model, count=2, **settings)
        assert words_of(part)[:2] == whole[:2]
        assert part.lengths[2].max() == 0 or settings.get("num_beams")


def test_the_loop_ends_with_the_last_caption(model, monkeypatch):
    config, graphdef, params, states = model
    # a model that ends at once
    sure = jax.tree.map(lambda x: x, params)
    sure["decoder"]["ln_f"] = {"scale": np.zeros(12, "f"), "bias": np.ones(12, "f")}
    sure["decoder"]["wte"] = {"embedding": np.eye(6, 12, dtype="f") * 0 + np.arange(6)[:, None]}
    steps = []
    real = FAMILY.decode_step

    def counted(*arguments):
        jax.debug.callback(lambda position: steps.append(int(position)), arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(FAMILY, "decode_step", counted)
    for loop in (generation._one_by_one, generation._beam_search):
        loop.clear_cache()
    try:
        for settings in ({}, {"num_beams": 2, "early_stopping": True}):
            steps.clear()
            found = generate(
                FAMILY, graphdef, FAMILY.weights(graphdef, sure), states,
                Decoding(max_new_tokens=20, **settings),
                FAMILY.token_ids(config),
            )  # fmt: skip
            jax.effects_barrier()
            jax.block_until_ready(found)
            assert found.lengths[0, 0] == 1
            assert max(steps) <= 2
    finally:
        for loop in (generation._one_by_one, generation._beam_search):
            loop.clear_cache()


def test_settings_that_are_numbers_compile_nothing_anew(model):
    run(model, num_beams=2, max_new_tokens=3)
    before = generation._beam_search._cache_size()
    for change in ({"length_penalty": 2.0}, {"early_stopping": True}, {"count": 2}):
        run(model, **{"num_beams": 2, "max_new_tokens": 3, **change})
    assert generation._beam_search._cache_size() == before
    run(model, num_beams=2, max_new_tokens=2)
    assert generation._beam_search._cache_size() == before + 1
