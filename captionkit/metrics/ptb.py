"""The tokenisation of the COCO caption evaluation, without Java."""

from __future__ import annotations

import functools
import re

from captionkit.metrics.ptb_rules import Rule, rules

# What the COCO evaluation drops. It does so after lower-casing, hence brackets stay, as -lrb-.
_PUNCTUATION = frozenset(
    [
        *["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"],
        *[".", "?", "!", ",", ":", "-", "--", "...", ";"],
    ]
)

# Here every space ends a token and none looks past it.
_SIMPLE = re.compile(r"""[A-Za-z ,;:!?"'-]*\.? *""")
_LINE_ENDS = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\u2028\u2029", " "))
_MAX_CACHE = 100_000


@functools.lru_cache(1024)  # the metrics of one evaluation ask for the same texts in turn
def ptb_tokenize(text: str) -> str:
    """The tokens of a caption in lower case and without punctuation, joined by spaces.

    What the COCO evaluation makes of it (Stanford CoreNLP 3.4.1's `PTBTokenizer -preserveLines
    -lowerCase`, then its own list of punctuation dropped) where the caption stands alone. Never
    fails. `docs/metrics.md` says what becomes of quotes, hyphens, contractions, numbers, Unicode.
    """
    text = text.translate(_LINE_ENDS)
    if _SIMPLE.fullmatch(text) is None:
        return _coco_form(_tokens(text))
    kept = [_chunk(chunk) for chunk in text.split()]
    return " ".join(each for each in kept if each)


@functools.lru_cache(_MAX_CACHE)
def _chunk(chunk: str) -> str:
    return _coco_form(_tokens(chunk))


def _coco_form(tokens: list[str]) -> str:
    line = " ".join(tokens).lower().rstrip()
    return " ".join(token for token in line.split(" ") if token not in _PUNCTUATION)


def _tokens(text: str) -> list[str]:
    end = len(text)
    text += "\n\n"  # some rules look two characters ahead
    position = 0
    tokens: list[str] = []
    while position < end:
        reach, token_end, chosen = position, position + 1, None
        for rule in _rules():
            match = rule.pattern.match(text, position)
            if match and match.end() > reach:
                reach, token_end, chosen = match.end(), match.end(1), rule
        if chosen is not None:  # else a character that the tokeniser does not know
            tokens += chosen.tokens(text[position:token_end])
        position = token_end
    return tokens


@functools.cache
def _rules() -> list[Rule]:
    return rules()
