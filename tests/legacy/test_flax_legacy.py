"""Against the Flax classes that transformers removed in version 5: `nox -s tests-legacy`."""

from __future__ import annotations

import pytest

pytest.importorskip("jax")
transformers = pytest.importorskip("transformers")
if not hasattr(transformers, "FlaxVisionEncoderDecoderModel"):
    pytest.skip("needs transformers 4.57 or older", allow_module_level=True)

import jax  # noqa: E402 (after the skip)
import numpy as np  # noqa: E402
import optax  # noqa: E402
from transformers import (  # noqa: E402
    FlaxVisionEncoderDecoderModel,
    GPT2Config,
    VisionEncoderDecoderConfig,
    ViTConfig,
)

from captionkit.backends.flax.generate import generate  # noqa: E402
from captionkit.backends.flax.loss import IGNORED, caption_loss  # noqa: E402
from captionkit.backends.flax.models import family_of  # noqa: E402
from captionkit.recipe import Decoding  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # theirs are many, and stay as they are
FAMILY = family_of("vision-encoder-decoder")

# the projection between parts is there in the first and not in the second
SIZES = {
    "unequal widths, tied": (
        {"hidden_size": 24, "num_attention_heads": 3, "image_size": 24},
        {"n_embd": 32, "n_head": 4},
    ),
    "equal widths, untied": (
        {"hidden_size": 32, "num_attention_heads": 4, "image_size": 16, "hidden_act": "relu"},
        {"n_embd": 32, "n_head": 2, "tie_word_embeddings": False, "activation_function": "gelu"},
    ),
}


@pytest.fixture(scope="module", params=SIZES)
def models(request, tmp_path_factory):
    """(their model, our config, our graphdef, our parameters read from their msgpack)."""
    vit, gpt2 = SIZES[request.param]
    encoder = ViTConfig(
        num_hidden_layers=2, intermediate_size=40, patch_size=8, initializer_range=0.2, **vit
    )
    decoder = GPT2Config(
        vocab_size=50, n_positions=24, n_layer=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        is_decoder=True, add_cross_attention=True, initializer_range=0.2, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, **gpt2,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig(
        encoder=encoder.to_dict(), decoder=decoder.to_dict(), decoder_start_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    shapes = ((1, encoder.image_size, encoder.image_size, 3), (1, 1))
    theirs = FlaxVisionEncoderDecoderModel(config, input_shape=shapes, seed=1)
    folder = tmp_path_factory.mktemp("legacy")
    theirs.save_pretrained(folder)
    assert [p.name for p in folder.glob("*model*")] == ["flax_model.msgpack"]
    config = FAMILY.config_of(folder)
    return theirs, config, FAMILY.abstract(config)[0], FAMILY.load_params(folder, config)


def batch_for(config, seed=0, rows=4, length=7):
    draw = np.random.default_rng(seed)
    pixels = draw.normal(size=(rows, *config.encoder.image_size, 3)).astype(np.float32)
    ids = draw.integers(3, 50, (rows, length))
    ids[:, 0] = 1
    mask = (np.arange(length) < draw.integers(3, length + 1, (rows, 1))).astype(int)
    targets = np.where(mask == 1, np.roll(ids, -1, 1), IGNORED)
    return pixels, np.where(mask == 1, ids, 0), mask, targets


def their_logits(theirs, params, pixels, ids, mask):
    return theirs(
        pixels.transpose(0, 3, 1, 2), ids, decoder_attention_mask=mask, params=params, train=False
    ).logits


def test_logits_from_a_msgpack(models):
    theirs, config, graphdef, params = models
    pixels, ids, mask, _ = batch_for(config)
    expected = np.asarray(their_logits(theirs, theirs.params, pixels, ids, mask))
    ours = np.asarray(FAMILY.apply(graphdef, params, pixels, ids, mask))
    assert np.abs(expected).max() > 1
    assert np.abs(ours - expected)[mask == 1].max() < 1e-4


def test_losses_over_ten_training_steps(models):
    theirs, config, graphdef, params = models
    batches = [batch_for(config, seed % 2) for seed in range(10)]
    optimizer = optax.sgd(0.05, momentum=0.9)

    def losses(params, logits):
        def loss(params, pixels, ids, mask, targets):
            total = caption_loss(logits(params, pixels, ids, mask), targets)
            return total / (targets != IGNORED).sum()

        step = jax.jit(jax.value_and_grad(loss))
        state, found = optimizer.init(params), []
        for batch in batches:
            value, gradients = step(params, *batch)
            updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            found.append(float(value))
        return found

    expected = losses(theirs.params, lambda p, *batch: their_logits(theirs, p, *batch))
    ours = losses(params, lambda p, *batch: FAMILY.apply(graphdef, p, *batch))
    assert expected[-1] < expected[0] - 0.3  # they learn
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_greedy_captions(models):
    theirs, config, graphdef, params = models
    pixels, *_ = batch_for(config)
    expected = theirs.generate(
        pixels.transpose(0, 3, 1, 2), max_length=13, num_beams=1, do_sample=False
    ).sequences
    states = FAMILY.encode(graphdef, params, pixels)
    settings = Decoding(max_new_tokens=12)
    weights = FAMILY.weights(graphdef, params)
    found = generate(FAMILY, graphdef, weights, states, settings, FAMILY.token_ids(config))
    for mine, length, yours in zip(found.ids, found.lengths, np.asarray(expected), strict=True):
        kept = int(length[0])
        assert mine[0, :kept].tolist() == yours[1 : kept + 1].tolist()


def test_a_sharded_msgpack(models, tmp_path):
    theirs, config, _, params = models
    theirs.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.msgpack"))) > 1
    again = FAMILY.load_params(tmp_path, config)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, params))
