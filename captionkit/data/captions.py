"""Caption -> token ids, and the word-level tokenizer of models that are trained from scratch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from captionkit.errors import ConfigError, DataError, first_line

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"

# A hyphen or an apostrophe inside a word belongs to it; any other sign is a token of its own.
_WORD_OR_SIGN = r"\w+(?:[-'\u2019]\w+)*|[^\w\s]"


def encode_captions(
    tokenizer: Any,
    captions: Sequence[str],
    max_tokens: int | None = None,
    limit: int | None = None,
    names: Sequence[str] | None = None,
    own_start: bool = True,
) -> list[list[int]]:
    """Token ids with the tokenizer's start tokens, each caption ended with its end token.

    Captions of more than `max_tokens` are cut, the end token kept. One that is then longer than
    `limit`, what the model allows, is a DataError; `names` say in it which image that is.
    own_start: False leaves the tokenizer's start tokens out, for a decoder with another.
    """
    captions = list(captions)
    if not captions:
        return []
    start, end = frame(tokenizer)
    start = start if own_start else []
    if max_tokens is not None and max_tokens <= len(start) + len(end):
        raise ConfigError(
            f"max_caption_tokens={max_tokens} leaves no room: start and end alone take "
            f"{len(start) + len(end)} tokens."
        )
    room = None if max_tokens is None else max_tokens - len(start) - len(end)
    # verbose=False: no word about the tokenizer's own limit, ours is below
    try:
        bodies = tokenizer(captions, add_special_tokens=False, verbose=False)["input_ids"]
    except Exception as error:  # such as no token for words that it does not know
        raise DataError(f"The tokenizer cannot take these captions: {first_line(error)}") from None
    encoded = [[*start, *body[:room], *end] for body in bodies]

    for i, ids in enumerate(encoded):
        if len(ids) == len(start) + len(end):
            raise DataError(f"{_which(i, captions, names)} holds nothing the tokenizer knows.")
        if limit is not None and len(ids) > limit:
            raise DataError(
                f"{_which(i, captions, names)} is {len(ids)} tokens long, and the model allows "
                f"{limit}. Cut long captions with max_caption_tokens={limit} (or less)."
            )
    return encoded


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens before and after every caption: ([CLS], [SEP]) for BERT, ([], [eos]) for GPT-2.

    Where the tokenizer adds no end token, its `eos_token` is the end.
    """
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next(
        (i for i in range(len(whole)) if plain and whole[i : i + len(plain)] == plain), len(whole)
    )
    start, end = whole[:at], whole[at + len(plain) :]
    if at == len(whole) or not end:
        start = start if at < len(whole) else []
        end = [t for t in (tokenizer.eos_token_id, tokenizer.sep_token_id) if t is not None][:1]
    if not end:
        raise ConfigError(
            "The tokenizer has neither an eos_token nor a sep_token, so captions would have no "
            "end. Set tokenizer.eos_token and save it again."
        )
    return start, end


def decoder_pairs(ids: Sequence[int], start_id: int | None) -> tuple[list[int], list[int]]:
    """What a decoder reads, and the token that it is to give at each position.

    ids: as `encode_captions` gives them; start_id: the token that decoding starts from. It is put
    in front where the tokenizer does not (GPT-2); None: the ids begin with whatever it is.
    """
    whole = list(ids)
    if whole and start_id is not None and whole[0] != start_id:
        whole = [start_id, *whole]
    return whole[:-1], whole[1:]


def special_ids(tokenizer: Any) -> tuple[int, int, int]:
    """Start, end and padding id of a decoder that is made for this tokenizer."""
    start, end = frame(tokenizer)
    padding = tokenizer.pad_token_id
    begin = start[0] if start else tokenizer.bos_token_id
    return (
        end[-1] if begin is None else begin,
        end[-1],
        end[-1] if padding is None else padding,
    )


def build_word_tokenizer(captions: Iterable[str]) -> Any:
    """A `PreTrainedTokenizerFast` of the words in these captions: `[CLS] words [SEP]`.

    Lower-cased. [PAD] is 0, [UNK] 1, [CLS] 2 (also bos), [SEP] 3 (also eos); then the words from
    the most frequent on, equally frequent ones in alphabetical order.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.Split(Regex(_WORD_OR_SIGN), behavior="removed", invert=True)
    counts: Counter[str] = Counter()
    for caption in captions:
        pieces = splitter.pre_tokenize_str(normalizer.normalize_str(caption))
        counts.update(word for word, _ in pieces)
    words = sorted(counts, key=lambda word: (-counts[word], word))
    vocabulary = {word: i for i, word in enumerate([PAD, UNK, CLS, SEP, *words])}

    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(CLS, 2), (SEP, 3)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),  # a space before each further token
            decoders.Fuse(),
            decoders.Replace(Regex(r" (?=[.,;:!?%)\]])"), ""),
            decoders.Replace(Regex(r"(?<=[(\[$#]) "), ""),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        bos_token=CLS,
        eos_token=SEP,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """`save_pretrained`, in a form that transformers 4 and 5 both load."""
    tokenizer.save_pretrained(folder)
    file = Path(folder) / "tokenizer_config.json"
    if not file.is_file():
        return
    settings = json.loads(file.read_text(encoding="utf-8"))
    # transformers 5 renamed the class; 4 does not know the new name, and 5 still knows the old one
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        file.write_text(text, encoding="utf-8")


def _which(i: int, captions: Sequence[str], names: Sequence[str] | None) -> str:
    text = captions[i] if len(captions[i]) <= 60 else f"{captions[i][:57]}..."
    return f"The caption {text!r}" + (f" of {names[i]}" if names is not None else "")
