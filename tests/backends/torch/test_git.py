"""GIT's adapter and captioner against GIT itself, used the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import captionkit
from captionkit.backends.torch.captioner import normalised
from captionkit.backends.torch.families import git
from captionkit.errors import CheckpointError, ConfigError, ImageError


@pytest.fixture(scope="module")
def model(git_folder):
    return AutoModelForCausalLM.from_pretrained(git_folder).eval()


@pytest.fixture(scope="module")
def images(pairs):
    return [image for image, _ in pairs[:5]]


@pytest.fixture(scope="module")
def pixel_values(captioner, images):
    return normalised(captioner.encode(images).pixels, captioner.preprocess)


@torch.no_grad()
def next_log_probs(model, pixels, ids):
    """One whole forward pass for one sequence, all positions, no cache, no padding."""
    ids = torch.tensor([ids])
    logits = model(pixel_values=pixels[None], input_ids=ids).logits[0, -1]
    return logits.double().log_softmax(-1)


def greedy_by_hand(model, pixels, length=8, start=2, end=3):
    ids, total = [start], 0.0
    for _ in range(length):
        log_probs = next_log_probs(model, pixels, ids)
        ids.append(int(log_probs.argmax()))
        total += float(log_probs[ids[-1]])
        if ids[-1] == end:
            break
    return ids, total / (len(ids) - 1)


def test_logits_are_those_of_the_text_positions(model, pixel_values):
    ids = torch.tensor([[2, 5, 6, 7], [2, 8, 0, 0], [2, 4, 9, 0], [2, 2, 2, 2], [2, 11, 5, 6]])
    mask = (ids != 0).long()
    ours = git.logits(model, pixel_values, ids, mask)
    with torch.no_grad():
        whole = model(pixel_values=pixel_values, input_ids=ids, attention_mask=mask).logits
    assert ours.shape == (5, 4, model.config.vocab_size)
    torch.testing.assert_close(ours, whole[:, -4:], atol=1e-5, rtol=0)
    # and padding changes nothing: one sequence at a time gives the same
    alone = git.logits(model, pixel_values[1:2], ids[1:2, :2], mask[1:2, :2])
    torch.testing.assert_close(ours[1, :2], alone[0], atol=1e-5, rtol=0)


def test_greedy_captions_and_scores_equal_a_brute_force_search(
    captioner, model, images, pixel_values
):
    captions = captioner.caption(images, max_new_tokens=8)
    for caption, pixels in zip(captions, pixel_values):
        ids, score = greedy_by_hand(model, pixels)
        assert caption.text == captioner.tokenizer.decode(ids, skip_special_tokens=True)
        assert caption.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize(("num_beams", "length_penalty"), [(2, 1.0), (4, 0.0), (4, 2.0)])
def test_beam_search_is_that_of_generate_and_its_score_is_recomputed(
    captioner, model, images, pixel_values, num_beams, length_penalty
):
    settings = {"num_beams": num_beams, "length_penalty": length_penalty, "max_new_tokens": 8}
    captions = captioner.caption(images, **settings)
    expected = model.generate(pixel_values=pixel_values, do_sample=False, **settings)
    for caption, ids, pixels in zip(captions, expected.tolist(), pixel_values):
        assert caption.text == captioner.tokenizer.decode(ids, skip_special_tokens=True)
        ids = ids[: ids.index(3) + 1] if 3 in ids else ids
        steps = [next_log_probs(model, pixels, ids[:t])[ids[t]].item() for t in range(1, len(ids))]
        assert caption.score == pytest.approx(np.mean(steps), abs=1e-5)


def test_several_captions_an_image_come_best_first(captioner, images):
    captions = captioner.caption(images, num_beams=4, num_return_sequences=3, max_new_tokens=6,
                                 length_penalty=1.0)  # fmt: skip
    assert len(captions) == 15
    for i in range(5):
        group = captions[3 * i : 3 * i + 3]
        assert len({caption.text for caption in group}) > 1
        assert [c.score for c in group] == sorted((c.score for c in group), reverse=True)


def test_sampling_is_seeded_and_scored_by_the_models_own_distribution(
    captioner, model, images, pixel_values
):
    settings = {"do_sample": True, "temperature": 1.7, "top_p": 0.9, "max_new_tokens": 6}
    torch.manual_seed(3)
    first = captioner.caption(images, **settings)
    torch.manual_seed(3)
    again = captioner.caption(images, **settings)
    assert first == again
    torch.manual_seed(4)
    assert first != captioner.caption(images, **settings)
    torch.manual_seed(3)
    sequences = model.generate(pixel_values=pixel_values, **settings, top_k=0).tolist()
    for caption, ids, pixels in zip(first, sequences, pixel_values):
        ids = ids[: ids.index(3) + 1] if 3 in ids else ids
        steps = [next_log_probs(model, pixels, ids[:t])[ids[t]].item() for t in range(1, len(ids))]
        assert caption.score == pytest.approx(np.mean(steps), abs=1e-5)


def test_captions_end_where_the_models_positions_end(captioner, images, model):
    limit = model.config.max_position_embeddings
    captions = captioner.caption(images, max_new_tokens=10 * limit)
    assert captions == captioner.caption(images, max_new_tokens=limit)


def test_loss_equals_a_token_by_token_sum_over_all_references(
    captioner, model, images, pixel_values, pairs
):
    references = [texts for _, texts in pairs[:5]]
    references[1] = references[1][0]  # one caption instead of a list
    total, count = captioner.loss(images, references)
    expected, tokens = 0.0, 0
    for pixels, texts in zip(pixel_values, references):
        for text in [texts] if isinstance(texts, str) else texts:
            ids = captioner.tokenizer(text)["input_ids"]
            for t in range(1, len(ids)):
                expected -= next_log_probs(model, pixels, ids[:t])[ids[t]].item()
                tokens += 1
    assert count == tokens
    assert total == pytest.approx(expected, rel=1e-5)


def test_captions_do_not_depend_on_the_batch(captioner, images):
    together = captioner.caption(images)
    apart = [captioner.caption(image)[0] for image in images]
    small = captioner.caption(images, batch_size=2)
    assert [c.text for c in together] == [c.text for c in apart] == [c.text for c in small]
    for a, b in zip(together, apart):
        assert math.isclose(a.score, b.score, abs_tol=1e-5)


def test_every_form_of_an_image_is_taken(captioner, images, tmp_path):
    image = images[0]
    path = tmp_path / "a.png"
    image.save(path)
    expected = captioner.caption(image)
    assert captioner.caption(path) == expected
    assert captioner.caption(str(path)) == expected
    assert captioner.caption(path.read_bytes()) == expected
    assert captioner.caption(np.asarray(image)) == expected
    assert captioner.caption(np.asarray(image)[None]) == expected
    assert [c.text for c in captioner.caption([path, image])] == [expected[0].text] * 2
    assert captioner.caption([]) == []
    assert captioner.caption(captioner.encode([image])) == expected
    assert captionkit.caption(path, model=captioner.model.name_or_path) == expected


def test_wrong_input_is_explained(captioner, images, tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        captioner.caption(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match="Cannot caption 'int'"):
        captioner.caption(3)
    with pytest.raises(ConfigError, match="did you mean 'num_beams'"):
        captioner.caption([], num_beam=3)
    with pytest.raises(ConfigError, match="temperature=0"):
        captioner.caption([], temperature=0.0)
    for texts in (["red above blue."], ["red above blue."] * 3):
        with pytest.raises(ConfigError, match=f"2 images and captions for {len(texts)}"):
            captioner.loss(images[:2], texts)


def test_the_checkpoints_own_decoding_is_the_default(git_folder, tmp_path, images):
    import shutil

    folder = tmp_path / "own"
    shutil.copytree(git_folder, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.update(max_new_tokens=3, num_beams=2)
    model.generation_config.save_pretrained(folder)
    captioner = captionkit.load(folder, device="cpu")
    assert captioner.caption(images) == captioner.caption(images, max_new_tokens=3, num_beams=2)
    assert captioner.caption(images) != captioner.caption(images, max_new_tokens=8, num_beams=2)


def test_plain_transformers_reads_the_tokenizer_and_the_processor(git_folder):
    from transformers import AutoImageProcessor

    assert AutoTokenizer.from_pretrained(git_folder).pad_token_id == 0
    processor = AutoImageProcessor.from_pretrained(git_folder)
    assert processor(torch.zeros(3, 50, 40))["pixel_values"][0].shape == (3, 32, 32)


def test_video_variants_are_refused(git_folder, tmp_path, git_config):
    import copy
    import shutil

    folder = tmp_path / "video"
    shutil.copytree(git_folder, folder)
    config = copy.deepcopy(git_config)
    config.num_image_with_embedding = 6
    config.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="6 video frames"):
        captionkit.load(folder)


def test_relative_positions_are_refused(git_folder, tmp_path):
    import json
    import shutil

    folder = tmp_path / "relative"
    shutil.copytree(git_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["position_embedding_type"] = "relative_key"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="position_embedding_type='relative_key'"):
        captionkit.load(folder)


def test_a_tokenizer_that_puts_no_start_before_captions(
    git_config, gpt2_like_tokenizer, pairs, tmp_path
):
    """The start token is then the model's, in training as in generation: as with Flax."""
    folder = tmp_path / "from-scratch"
    folder.mkdir()
    (folder / "config.json").write_text(git_config.to_json_string(use_diff=False))
    gpt2_like_tokenizer.save_pretrained(folder)
    result = captionkit.finetune(
        model=str(folder), dataset=pairs, output_dir=str(tmp_path / "run"), backend="torch",
        device="cpu", precision="fp32", max_steps=1, batch_size=4, metrics=["wer"],
        max_new_tokens=4, test_size=0.25,
    )  # fmt: skip
    captioner = result.captioner
    end = gpt2_like_tokenizer.eos_token_id
    assert git.start_id(captioner.model) == captioner.model.generation_config.bos_token_id == end
    # a word, the start token before it, is scored as well as the end: two targets
    assert captioner.loss([pairs[0][0]], ["red"])[1] == 2
