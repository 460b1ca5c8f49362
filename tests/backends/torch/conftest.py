"""A tiny GIT with random weights, and a few pictures to learn."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pictures import sixteen_pairs  # noqa: E402 (after the skip)

from captionkit.data.captions import build_word_tokenizer  # noqa: E402
from captionkit.data.preprocess import Preprocessor  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)  # tests compare bits; more threads sum in another order


@pytest.fixture(scope="session")
def pairs():
    """Sixteen pictures, half one colour over another, with two captions each."""
    return sixteen_pairs()


@pytest.fixture(scope="session")
def git_config():
    from transformers import GitConfig

    return GitConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "initializer_range": 0.1,
        },
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=24, bos_token_id=2, eos_token_id=3,
        pad_token_id=0, initializer_range=0.3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer(pairs):
    return build_word_tokenizer(text for _, texts in pairs for text in texts)


@pytest.fixture(scope="session")
def gpt2_like_tokenizer(pairs):
    """As GPT-2's: nothing before a caption, one token for start, end and padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({w for _, texts in pairs for t in texts for w in t.replace(".", "").split()})
    vocabulary = {word: i for i, word in enumerate(["<end>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def git_folder(tmp_path_factory, git_config, tokenizer):
    """A checkpoint folder as `save_pretrained` writes it."""
    from transformers import GitForCausalLM

    folder = tmp_path_factory.mktemp("tiny-git")
    torch.manual_seed(0)
    git_config.vocab_size = len(tokenizer)
    GitForCausalLM(git_config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Preprocessor.square(32).save(folder)
    return folder


@pytest.fixture(scope="session")
def captioner(git_folder):
    import captionkit

    return captionkit.load(git_folder, device="cpu")
