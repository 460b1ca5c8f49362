"""How a measured value is called, written, and which way it gets better."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from typing import Literal

from captionkit.registry import metric_directions

Better = Literal["lower", "higher"]

LOWER_IS_BETTER = frozenset(
    {"loss", "wer", "cer", "mer", "wil", "ter", "perplexity", "most_common_share"}
)
NO_DIRECTION = frozenset(
    {
        "gen_len",
        "learning_rate",
        "grad_norm",
        "epoch",
        "step",
        "images",
        "seconds",
        "length",
        "confidence",
        "images_per_second",
    }
)
# The order in which values are listed; the first that images have is the one to sort them by.
ORDER = ("wer", "cer", "cider", "spice", "meteor", "bleu", "rouge", "loss")

# Of each family the one that stands under every image; the others are folded away.
_LEADING = frozenset({"wer", "cer", "cider", "spice", "meteor", "bleu4", "bleu_4", "rougel"})

_NAMES = {
    "rouge_l": "ROUGE\u2011L (COCO)", "cider_d": "CIDEr\u2011D",
    "meteor_nltk": "METEOR (nltk)", "distinct_captions": "Distinct captions",
    "vocabulary": "Vocabulary", "most_common_share": "Most common caption",
    "wer": "WER", "cer": "CER", "cider": "CIDEr", "loss": "Loss", "meteor": "METEOR",
    "spice": "SPICE", "learning_rate": "Learning rate", "grad_norm": "Gradient norm",
    "images_per_second": "Images per second", "gen_len": "Generated length",
    "confidence": "Confidence",
}  # fmt: skip
_MEANINGS = {
    "wer": "word edits per reference word",
    "cer": "character edits per reference character",
    "loss": "cross-entropy per token",
    "cider": "agreement with the references, rare words count more",
    "cider_d": "agreement with the references, rare words count more",
    "rouge_l": "longest common sequence of words, recall weighed more",
    "distinct_captions": "different captions",
    "vocabulary": "different words said",
    "most_common_share": "share of images with the most common caption",
    "rouge1": "single words shared",
    "rouge2": "word pairs shared",
    "rougeL": "longest common sequence of words",
    "rougeLsum": "as ROUGE\u2011L, line by line",
    "meteor": "words shared, with stems and synonyms",
    "spice": "objects, attributes and relations shared",
    "learning_rate": "learning rate",
    "grad_norm": "L2 norm of the gradient",
    "images_per_second": "images per second",
    "gen_len": "tokens",
}


def plain_key(key: str) -> str:
    """`eval_rougeL` and `rougeL` are the same measure."""
    return key.removeprefix("eval_")


def label(key: str) -> str:
    """The name that papers use: `rougeL` is ROUGE-L, `eval_bleu_4` is BLEU-4."""
    key = plain_key(key)
    if key in _NAMES:
        return _NAMES[key]
    if match := re.fullmatch(r"(rouge|bleu)_?(\w*)", key, flags=re.IGNORECASE):
        return "-".join(part for part in (match[1].upper(), match[2]) if part)
    words = key.replace("_", " ").strip() or key
    return words[:1].upper() + words[1:]


def meaning(key: str) -> str:
    """A few words of explanation, or nothing."""
    key = plain_key(key)
    if match := re.fullmatch(r"bleu_?(\d)", key, flags=re.IGNORECASE):
        return "shared runs of up to " + (f"{match[1]} words" if match[1] != "1" else "one word")
    return _MEANINGS.get(key, "")


def better(key: str) -> Better | None:
    """Which way the value gets better, by the metric that gives it; None where neither way is."""
    key = plain_key(key)
    if key in NO_DIRECTION:
        return None
    higher = _directions().get(key, key.lower() not in LOWER_IS_BETTER)
    return "higher" if higher else "lower"


@functools.cache
def _directions() -> dict[str, bool]:
    return metric_directions()


def direction(key: str) -> str:
    """The direction in words, for every reader."""
    way = better(key)
    return f"{way} is better" if way else ""


def number(key: str, value: float | None) -> str:
    """The value as a reader wants it: WER 0.07, ROUGE 91.2, a learning rate of 5e-5."""
    key = plain_key(key)
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if key == "confidence":
        return f"{value:.0f} %"
    if 0 < abs(value) < 1e-3 or abs(value) >= 1e7:
        return scientific(value)
    if key == "learning_rate":
        return f"{value:.3g}"
    if key == "length":
        return f"{value:.1f}".removesuffix(".0")
    if key.lower().startswith("rouge"):
        return _minus(f"{value:.1f}")
    if key in ("wer", "cer"):
        return _minus(f"{value:.2f}" if value == 0 or abs(value) >= 0.01 else f"{value:.3f}")
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1000):
        return _minus(f"{int(value):,}")
    size = abs(value)
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return _minus(f"{value:,.{decimals}f}")


def scientific(value: float) -> str:
    """With as few digits as it takes, at most three: 5e-5, 7.5e-4."""
    digits, exponent = f"{value:.2e}".split("e")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return _minus(f"{digits}e{int(exponent)}")


def change(key: str, value: float) -> str:
    """A difference of two values, with its sign; small differences need a digit more."""
    text = _minus(f"{value:.3f}") if plain_key(key) in ("wer", "cer") else number(key, value)
    return text if not value > 0 else f"+{text}"


def in_order(keys: Iterable[str]) -> list[str]:
    """Without doubles, the best known first, the rest as they came."""
    return sorted(dict.fromkeys(keys), key=_rank)


def leading(keys: Iterable[str], most: int = 3) -> list[str]:
    """The few that say most: one a family, or else the first ones."""
    ordered = in_order(keys)
    return ([key for key in ordered if key.lower() in _LEADING] or ordered)[:most]


def main_measure(keys: Iterable[str], wanted: object = None) -> str | None:
    """The one to sort images by: the run's own choice if images have it, else the first."""
    ordered = in_order(keys)
    if isinstance(wanted, str) and plain_key(wanted) in ordered:
        return plain_key(wanted)
    return next(iter(leading(ordered)), None)


def _rank(key: str) -> tuple[int, str]:
    plain = plain_key(key)
    place = next((i for i, name in enumerate(ORDER) if plain.lower().startswith(name)), None)
    return (len(ORDER), "") if place is None else (place, plain)


def _minus(text: str) -> str:
    return text.replace("-", "−") if text.startswith("-") else text
