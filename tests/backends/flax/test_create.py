"""A model made from an encoder and a decoder: the tensors of its parts, and fresh ones between."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from captionkit.backends.flax.captioner import load_captioner
from captionkit.create import create
from captionkit.data.preprocess import Preprocessor
from captionkit.errors import CheckpointError, OutputError

VIT = {
    "model_type": "vit", "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 20, "image_size": 16, "patch_size": 8, "qkv_bias": True,
    "initializer_range": 0.02, "id2label": {"0": "cat"}, "torch_dtype": "float32",
    "architectures": ["ViTForImageClassification"],
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16,
    "n_inner": None, "initializer_range": 0.1, "bos_token_id": 2, "eos_token_id": 3,
    "architectures": ["GPT2LMHeadModel"], "tie_word_embeddings": True,
    "task_specific_params": {"text-generation": {"do_sample": True}},
}  # fmt: skip


@pytest.fixture
def parts(make, tmp_path, tokenizer):
    """Folders as they lie on the hub: a classifier, and a bare GPT-2 with old buffers."""
    return write_parts(make, tmp_path, tokenizer)


def write_parts(make, tmp_path, tokenizer, vit=VIT, gpt2=GPT2):
    gpt2 = {**gpt2, "vocab_size": len(tokenizer)}
    shapes = make.vit_shapes(vit)
    encoder = {f"vit.{n}": t for n, t in make.tensors(shapes).items() if "pooler" not in n}
    encoder["classifier.weight"] = np.zeros((2, vit["hidden_size"]), np.float32)
    encoder["classifier.bias"] = np.zeros(2, np.float32)
    decoder = make.tensors(make.gpt2_shapes(gpt2, cross_attention=False))
    decoder = {name.removeprefix("transformer."): tensor for name, tensor in decoder.items()}
    for layer in range(gpt2["n_layer"]):
        decoder[f"h.{layer}.attn.bias"] = np.ones((1, 1, 16, 16), np.float32)
        decoder[f"h.{layer}.attn.masked_bias"] = np.float32([-1e4])
    make.checkpoint(tmp_path / "vit", vit, encoder)
    make.checkpoint(tmp_path / "gpt2", gpt2, decoder)
    Preprocessor.square(16).save(tmp_path / "vit")
    tokenizer.pad_token = None
    try:
        tokenizer.save_pretrained(tmp_path / "gpt2")
    finally:
        tokenizer.pad_token = "[PAD]"
    return tmp_path / "vit", tmp_path / "gpt2", encoder, decoder


def test_the_tensors_of_the_parts_are_in_it_and_the_rest_is_fresh(make, parts, tmp_path):
    vit, gpt2, encoder, decoder = parts
    folder = create(vit, gpt2, tmp_path / "ved", seed=1)
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    assert {n: t.shape for n, t in tensors.items()} == make.shapes(config)
    for name, tensor in encoder.items():
        if name.startswith("vit."):
            np.testing.assert_array_equal(tensors[name.replace("vit.", "encoder.")], tensor)
    for name, tensor in decoder.items():
        if not name.endswith(("attn.bias", "masked_bias")):
            np.testing.assert_array_equal(tensors[f"decoder.transformer.{name}"], tensor)
    fresh = "decoder.transformer.h.{}.crossattention.{}.weight"
    assert tensors[fresh.format(0, "c_attn")].std() == pytest.approx(0.1, rel=0.1)
    assert tensors[fresh.format(1, "c_proj")].std() == pytest.approx(0.05, rel=0.15)
    assert (tensors["decoder.transformer.h.0.ln_cross_attn.weight"] == 1).all()
    assert not np.array_equal(
        tensors[fresh.format(0, "q_attn")], tensors[fresh.format(1, "q_attn")]
    )


def test_what_cannot_be_written_leaves_no_half(parts, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be made"):
        create(*parts[:2], tmp_path / "file" / "ved")

    def full(tensors, file, **_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("safetensors.numpy.save_file", full)
        with pytest.raises(OutputError, match=r"The model could not be written .*again\.$"):
            create(*parts[:2], tmp_path / "ved")
    assert not list((tmp_path / "ved").iterdir())
    assert create(*parts[:2], tmp_path / "ved") == tmp_path / "ved"


def test_the_config_says_how_decoding_starts_and_ends(parts, tmp_path):
    folder = create(*parts[:2], tmp_path / "ved")
    config = json.loads((folder / "config.json").read_text())
    assert config["decoder"]["is_decoder"] is config["decoder"]["add_cross_attention"] is True
    tokens = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    assert [config[name] for name in tokens] == [2, 3, 3]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert [generation[name] for name in tokens] == [2, 3, 3]


def test_the_result_captions_and_a_seed_decides_it(parts, tmp_path, pairs):
    images = [image for image, _ in pairs[:3]]
    captions = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        captioner = load_captioner(create(*parts[:2], tmp_path / name, seed=seed), "cpu")
        assert captioner.tokenizer.pad_token_id is not None
        captions.append(captioner.caption(images, max_new_tokens=6))
    assert captions[0] == captions[1] != captions[2]
    first, same = (load_file(tmp_path / n / "model.safetensors") for n in "ab")
    assert all(first[name].tobytes() == same[name].tobytes() for name in first)


def test_a_deit_and_a_decoder_of_its_width_need_no_projection(make, tmp_path, tokenizer, pairs):
    deit = {**VIT, "model_type": "deit", "hidden_size": 32}
    vit, gpt2, _, _ = write_parts(make, tmp_path, tokenizer, vit=deit)
    folder = create(vit, gpt2, tmp_path / "ved")
    assert not any("proj." in n for n in load_file(folder / "model.safetensors") if "enc_to" in n)
    assert load_captioner(folder, "cpu").caption(pairs[0][0], max_new_tokens=3)[0].text


def test_untied_heads_stay_apart(make, tmp_path, tokenizer):
    vit, gpt2, _, decoder = write_parts(
        make, tmp_path, tokenizer, gpt2={**GPT2, "tie_word_embeddings": False}
    )
    tensors = load_file(create(vit, gpt2, tmp_path / "ved") / "model.safetensors")
    np.testing.assert_array_equal(tensors["decoder.lm_head.weight"], decoder["lm_head.weight"])
    # the same file, said to be tied
    config = json.loads((gpt2 / "config.json").read_text()) | {"tie_word_embeddings": True}
    (gpt2 / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs"):
        create(vit, gpt2, tmp_path / "other")


def test_parts_that_do_not_go_together_are_refused(make, parts, tmp_path):
    vit, gpt2, encoder, _ = parts
    with pytest.raises(CheckpointError, match=r"'gpt2', which cannot be the encoder.*vit, deit"):
        create(gpt2, vit, tmp_path / "ved")
    with pytest.raises(CheckpointError, match=r"'vit', which cannot be the decoder.*gpt2"):
        create(vit, vit, tmp_path / "ved")
    with pytest.raises(OutputError, match="holds something already"):
        create(vit, gpt2, vit)
    del encoder["vit.encoder.layer.1.output.dense.bias"]
    encoder["vit.encoder.layer.2.output.dense.bias"] = np.zeros(3, np.float32)
    make.checkpoint(vit, VIT, encoder)
    with pytest.raises(
        CheckpointError, match=r"missing.*layer\.1\.output\.dense\.bias\n.*unknown.*layer\.2\."
    ):
        create(vit, gpt2, tmp_path / "ved")
    (vit / "model.safetensors").unlink()
    (vit / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="only torch can read"):
        create(vit, gpt2, tmp_path / "ved")
    assert not (tmp_path / "ved").exists()


def test_torch_reads_it_and_agrees(parts, tmp_path, pairs):
    torch = pytest.importorskip("torch")
    from transformers import VisionEncoderDecoderModel

    folder = create(*parts[:2], tmp_path / "ved")
    model, report = VisionEncoderDecoderModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    captioner = load_captioner(folder, "cpu")
    image = pairs[0][0]
    pixels = torch.tensor(captioner.preprocess(image)).permute(2, 0, 1)[None] / 255
    ids = model.eval().generate((pixels - 0.5) / 0.5, max_new_tokens=6, do_sample=False)[0]
    expected = captioner.tokenizer.decode(ids, skip_special_tokens=True)
    assert captioner.caption(image, max_new_tokens=6)[0].text == expected
