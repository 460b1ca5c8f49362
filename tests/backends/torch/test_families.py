"""Models made of an encoder's and a decoder's checkpoint, against transformers' own code."""

from __future__ import annotations

import os

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch.nn import functional
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForMaskedLM,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderModel,
)

import captionkit
from captionkit.backends.torch.captioner import normalised
from captionkit.backends.torch.families import vision_encoder_decoder as ved
from captionkit.backends.torch.train import freeze
from captionkit.create import create
from captionkit.errors import CheckpointError

pytestmark = pytest.mark.skipif(
    transformers.__version__.startswith("4."), reason="transformers 4 names the parts otherwise"
)
TEXTS = ["a red one above a green", "two blue below", "yellow", "a white one"]

# ---- checkpoints as they lie on the hub, tiny ----------------------------------------------------

_PLAIN = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2],
         "window_size": 4, "drop_path_rate": 0.0}  # fmt: skip
_SMALL_TEXT = {**_PLAIN, "vocab_size": 30, "max_position_embeddings": 8}
del _SMALL_TEXT["image_size"], _SMALL_TEXT["patch_size"]
_SQUARE, _CROP = {"height": 32, "width": 32}, {"shortest_edge": 40}
ENCODERS = {  # config class, its settings, model class, image processor class, its settings
    "vit": ("ViTConfig", _PLAIN, "ViTForImageClassification", "ViTImageProcessor",
            {"size": _SQUARE}),
    "deit": ("DeiTConfig", _PLAIN, "DeiTForImageClassification", "DeiTImageProcessor",
             {"size": {"height": 36, "width": 36}, "crop_size": _SQUARE}),
    "beit": ("BeitConfig", {**_PLAIN, "use_relative_position_bias": True, "drop_path_rate": 0.0},
             "BeitForImageClassification", "BeitImageProcessor", {"size": _SQUARE}),
    "beit-shared": ("BeitConfig",
                    {**_PLAIN, "use_shared_relative_position_bias": True, "use_mean_pooling": False,
                     "drop_path_rate": 0.0}, "BeitModel", "BeitImageProcessor", {"size": _SQUARE}),
    "dinov2": ("Dinov2Config", {**_PLAIN, "drop_path_rate": 0.0}, "Dinov2Model",
               "BitImageProcessor", {"size": _CROP, "crop_size": _SQUARE}),
    "swin": ("SwinConfig", _SWIN, "SwinForImageClassification", "ViTImageProcessor",
             {"size": _SQUARE}),
    "clip": ("CLIPVisionConfig", _PLAIN, "CLIPVisionModel", "CLIPImageProcessor",
             {"size": _CROP, "crop_size": _SQUARE}),
    "clip-whole": ("CLIPConfig", {"vision_config": _PLAIN, "text_config": _SMALL_TEXT},
                   "CLIPModel", "CLIPImageProcessor", {"size": _CROP, "crop_size": _SQUARE}),
    "siglip": ("SiglipVisionConfig", _PLAIN, "SiglipVisionModel", "SiglipImageProcessor",
               {"size": _SQUARE}),
    "siglip-whole": ("SiglipConfig", {"vision_config": _PLAIN, "text_config": _SMALL_TEXT},
                     "SiglipModel", "SiglipImageProcessor", {"size": _SQUARE}),
}  # fmt: skip
_TEXT = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 24, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def tokenizer_of(kind):
    """Special tokens by the model's own names and numbers, and words for the rest."""
    special = {
        "gpt2": ["<|endoftext|>"],
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>"],
    }[kind]
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    unknown = {"gpt2": "<|endoftext|>", "bert": "[UNK]", "roberta": "<unk>"}[kind]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {
        "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        "bert": {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"},
        "roberta": {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>",
                    "sep_token": "</s>", "pad_token": "<pad>"},
    }[kind]  # fmt: skip
    if kind != "gpt2":
        first, last = names["cls_token"], names["sep_token"]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{first} $A {last}",
            special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, **names)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder for an encoder or a decoder by its name, made when it is asked for."""
    made = {}

    def encoder(name, folder):
        config, settings, model, processor, sizes = ENCODERS[name]
        config = getattr(transformers, config)(**settings)
        getattr(transformers, model)(config).save_pretrained(folder)
        pil = getattr(transformers, f"{processor}Pil", None) or getattr(transformers, processor)
        pil(**sizes).save_pretrained(folder)

    def decoder(name, folder):
        tokenizer = tokenizer_of(name)
        tokenizer.save_pretrained(folder)
        if name == "gpt2":
            config = transformers.GPT2Config(
                n_embd=24, n_layer=2, n_head=2, n_positions=24, vocab_size=len(tokenizer),
                bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            )  # fmt: skip
            transformers.GPT2LMHeadModel(config).save_pretrained(folder)
            return
        config = getattr(transformers, {"bert": "BertConfig", "roberta": "RobertaConfig"}[name])(
            **_TEXT, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id
        )
        AutoModelForMaskedLM.from_config(config).save_pretrained(folder)

    def make(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = tmp_path_factory.mktemp(name)
            (encoder if name in ENCODERS else decoder)(name, made[name])
        return made[name]

    return make


@pytest.fixture(scope="module")
def images(pairs):
    return [image for image, _ in pairs[:4]]


# ---- every pair ----------------------------------------------------------------------------------

PAIRS = [
    ("vit", "roberta"), ("deit", "gpt2"), ("beit", "bert"), ("dinov2", "roberta"), ("swin", "gpt2"),
    ("clip-whole", "bert"), ("siglip-whole", "roberta"),
]  # fmt: skip
LEARNED = [("clip-whole", "roberta"), ("swin", "bert"), ("dinov2", "gpt2")]
if os.environ.get("CAPTIONKIT_ALL_PAIRS"):
    PAIRS = LEARNED = [(e, d) for e in ENCODERS for d in ("gpt2", "bert", "roberta")]


@torch.no_grad()
def loss_by_transformers(folder, images, texts):
    """The sum over the tokens of each caption, one at a time, and their number."""
    model, info = VisionEncoderDecoderModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    processor = AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    total, count = 0.0, 0
    for image, text in zip(images, texts):
        pixel_values = torch.as_tensor(processor(image)["pixel_values"][0])[None]
        words = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = [model.config.decoder_start_token_id, *words, model.config.eos_token_id]
        logits = model.eval()(
            pixel_values=pixel_values, decoder_input_ids=torch.tensor([ids[:-1]])
        ).logits
        total += functional.cross_entropy(logits[0], torch.tensor(ids[1:]), reduction="sum").item()
        count += len(ids) - 1
    return total, count


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_a_pair_is_read_by_transformers_which_computes_the_same_loss(
    checkpoint, images, tmp_path, encoder, decoder
):
    folder = create(checkpoint(encoder), checkpoint(decoder), tmp_path / "model", seed=1)
    captioner = captionkit.load(folder, backend="torch", device="cpu")
    expected, count = loss_by_transformers(folder, images, TEXTS)
    assert captioner.loss(images, TEXTS) == (pytest.approx(expected, rel=1e-5), count)
    model = VisionEncoderDecoderModel.from_pretrained(folder).eval()
    pixel_values = normalised(captioner.encode(images).pixels, captioner.preprocess)
    ids = model.generate(pixel_values, max_new_tokens=6, do_sample=False)
    texts = captioner.tokenizer.batch_decode(ids, skip_special_tokens=True)
    found = captioner.caption(images, max_new_tokens=6)
    assert [caption.text for caption in found] == [text.strip() for text in texts]


@pytest.mark.parametrize(("encoder", "decoder"), LEARNED)
def test_a_pair_memorises_pictures_and_is_saved_as_it_captions(
    checkpoint, images, tmp_path, encoder, decoder
):
    result = captionkit.finetune(
        encoder=str(checkpoint(encoder)), decoder=str(checkpoint(decoder)), backend="torch",
        dataset=list(zip(images, TEXTS, strict=True)), output_dir=str(tmp_path / "run"), seed=1,
        device="cpu", precision="fp32", test_size=0, batch_size=4, warmup_steps=5,
        max_steps=60 if decoder != "bert" else 120,  # which normalises after adding, and is slower
        learning_rate=4e-3, save_steps=0, logging_steps=60, max_new_tokens=10,
    )  # fmt: skip
    assert [caption.text for caption in result.captioner.caption(images)] == TEXTS
    others = TEXTS[1:] + TEXTS[:1]
    expected, count = loss_by_transformers(result.output_dir, images, others)
    assert result.captioner.loss(images, others) == (pytest.approx(expected, rel=1e-4), count)


# ---- what no caption depends on ------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [e for e in ENCODERS if not e.endswith("-whole")])
def test_all_that_is_trained_gets_a_gradient_and_nothing_else_would(
    checkpoint, images, tmp_path, encoder
):
    folder = create(checkpoint(encoder), checkpoint("gpt2"), tmp_path / "model")
    captioner = captionkit.load(folder, backend="torch", device="cpu")
    model = captioner.model
    pixel_values = normalised(captioner.encode(images).pixels, captioner.preprocess)
    ids = torch.ones(4, 3, dtype=torch.long)
    ved.logits(model, pixel_values, ids, torch.ones_like(ids)).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    freeze(model, ())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == reached


# ---- what does not go together -------------------------------------------------------------------


def test_a_decoder_without_cross_attention_is_refused(checkpoint, tmp_path):
    config = transformers.OPTConfig(
        hidden_size=24, ffn_dim=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=16,
        word_embed_proj_dim=24, max_position_embeddings=24,
    )  # fmt: skip
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    with pytest.raises(CheckpointError, match=r"'opt'.*cannot be the decoder.*cross-attention"):
        create(checkpoint("vit"), tmp_path / "opt", tmp_path / "model")
    whole = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**_PLAIN), config
    )
    (tmp_path / "model").mkdir()
    whole.save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"\(opt\) has no cross-attention in transformers"):
        captionkit.load(tmp_path / "model", backend="torch")


def test_a_bare_decoder_gets_output_layers_with_a_word_about_it(checkpoint, images, tmp_path):
    source = checkpoint("bert")
    model = AutoModel.from_pretrained(source)
    model.save_pretrained(tmp_path / "bare")
    tokenizer_of("bert").save_pretrained(tmp_path / "bare")
    with pytest.warns(UserWarning, match=r"no output layers.*cls\.predictions\.transform"):
        folder = create(checkpoint("vit"), tmp_path / "bare", tmp_path / "model")
    loss_by_transformers(folder, images, TEXTS)  # all tensors are there


def test_parts_that_do_not_belong_together_are_refused(checkpoint, tmp_path):
    encoder, decoder = checkpoint("siglip"), checkpoint("bert")
    with pytest.raises(CheckpointError, match=r"'bert', which cannot be the encoder.*siglip"):
        create(decoder, decoder, tmp_path / "model")
    import shutil

    shutil.copytree(encoder, tmp_path / "other-size")
    transformers.SiglipImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(
        tmp_path / "other-size"
    )
    with pytest.raises(CheckpointError, match="48 x 48 pixels, and the encoder takes 32 x 32"):
        create(tmp_path / "other-size", decoder, tmp_path / "model")
    shutil.copytree(decoder, tmp_path / "other-words")
    more = tokenizer_of("bert")
    more.add_tokens(["another", "word"])
    more.save_pretrained(tmp_path / "other-words")
    with pytest.raises(CheckpointError, match=r"has 16 tokens.*vocabulary 14"):
        create(encoder, tmp_path / "other-words", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_positions_of_roberta_begin_behind_its_padding(checkpoint, tmp_path):
    folder = create(checkpoint("vit"), checkpoint("roberta"), tmp_path / "model")
    captioner = captionkit.load(folder, backend="torch", device="cpu")
    assert ved.text_limit(captioner.model.config) == 24 - 2
    with torch.no_grad():
        for length, fits in ((22, True), (23, False)):
            ids = torch.full((1, length), 5)
            call = lambda ids=ids: ved.logits(  # noqa: E731
                captioner.model, torch.zeros(1, 3, 32, 32), ids, torch.ones_like(ids)
            )
            if fits:
                assert call().shape[1] == length
            else:
                with pytest.raises((IndexError, RuntimeError)):
                    call()
