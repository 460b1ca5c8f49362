"""What the COCO evaluation's tokeniser takes for one token, as a table of regular expressions.

At each position the rule that reaches furthest wins, what it only looks ahead at included; of
those that reach equally far the first. Words in the table stand for every mixture of case, while
character classes distinguish it, as in the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from captionkit.metrics.ptb_abbreviations import BEFORE_NUMBERS, NAMES, SENTENCE_STARTS, TITLES
from captionkit.metrics.ptb_characters import DIGITS, LETTERS, MARKS, SYMBOLS


class Rule(NamedTuple):
    """`pattern`: group 1 is the token, the rest is looked ahead at. `tokens`: what it becomes."""

    pattern: re.Pattern[str]
    tokens: Callable[[str], list[str]]


def rules() -> list[Rule]:
    """All rules, in the order that decides between equally long matches."""
    return [Rule(re.compile(f"({pattern}){ahead}"), tokens) for pattern, ahead, tokens in _table()]


# How a token is spelled in the output


def _as_is(token: str) -> list[str]:
    return [token]


def _nothing(token: str) -> list[str]:
    return []


def _always(*tokens: str) -> Callable[[str], list[str]]:
    return lambda token: list(tokens)


def _without_soft_hyphens(token: str) -> list[str]:
    return [token.replace("\u00ad", "") or "-"]


def _plain_apostrophe(token: str) -> list[str]:
    return [re.sub("&apos;|[\u2019\u0092]", "'", re.sub("[\u2018\u0091\u201b]", "`", token))]


def _plain_ampersand(token: str) -> list[str]:
    return [re.sub("(?ai:&amp;)", "&", token)]


def _unbroken(token: str) -> list[str]:
    token = token.replace(" ", "\u00a0")
    return [token.replace("(", "-LRB-").replace(")", "-RRB-")]


def _unbroken_tag(token: str) -> list[str]:
    return [token.replace(" ", "\u00a0")]


def _spelled(spelling: dict[str, str]) -> Callable[[str], list[str]]:
    return lambda token: ["".join(spelling.get(char, char) for char in token)]


def _dashes(token: str) -> list[str]:
    return ["--" if 2 <= len(token) <= 4 else token]


_FRACTIONS = {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_CURRENCIES = {"¢": "cents", "£": "#", "¤": "$", "\u0080": "$", "₠": "$", "€": "$"}
_BRACKETS = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
_QUOTES = {
    **{char: "`" for char in "\u2018\u201b\u0091\u2039"},
    **{char: "'" for char in "\u2019\u0092\u203a"},
    **{char: "``" for char in "\u201c\u0093\u00ab"},
    **{char: "''" for char in "\u201d\u0094\u00bb"},
    **{char: char for char in "\u201a\u201e\u201f"},
}

# The parts that several rules share

_SPACE = "[ \\t\u00a0\u2000-\u200a\u3000]"
_SPACE_OR_END = "[ \\t\u00a0\u2000-\u200a\u3000\\n]"
_ACCENTED = "&[aeiouAEIOU](?ai:acute|grave|uml);"
_LETTER = f"(?:[{LETTERS}{MARKS}\u00ad]|{_ACCENTED})"
_LETTER_OR_DIGIT = f"(?:[{LETTERS}{MARKS}{DIGITS}\u00ad]|{_ACCENTED})"
_WORD = f"{_LETTER}{_LETTER_OR_DIGIT}*(?:[.!?]{_LETTER}{_LETTER_OR_DIGIT}*)*"
_APOSTROPHE = "(?:['\u2019\u0092]|&apos;)"
_ANY_APOSTROPHE = "(?:['`\u2018\u2019\u201b\u0091\u0092]|&apos;)"
_CLITIC = f"{_APOSTROPHE}(?:[msdMSD]|(?ai:re|ve|ll))"
_NOT = f"(?ai:n){_ANY_APOSTROPHE}(?ai:t)"
_DIGIT = f"[{DIGITS}]"
_NUMBER = f"(?:{_DIGIT}*(?:[.:,\u00ad\u066b\u066c]{_DIGIT}+)+|{_DIGIT}+)"
_FRACTION = rf"(?:{_DIGIT}{{1,4}}[- \u00a0])?{_DIGIT}{{1,4}}(?:\\?/|\u2044){_DIGIT}{{1,4}}"
_PLAIN = f"[{LETTERS}{DIGITS}]"
_PREFIXED = f"(?:[dDoOlL]{_ANY_APOSTROPHE}{_PLAIN})?{_PLAIN}+"
_COMPOUND = f"{_PREFIXED}(?:[-_\u058a\u2010\u2011]{_PREFIXED})*"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_COUNTRIES = (
    r"(?:(?ai:canada|sino|korean|eu|japan|non)-(?ai:u\.s)|(?ai:u\.s\.-)(?ai:u\.k|u\.s\.s\.r))"
)
_DOTTED_COMPOUND = f"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:{_ACRONYM}\\.|[A-Za-z0-9\u00ad]+))+"
_INITIALS = "[A-Z]+(?:(?:[+&]|(?ai:&amp;))[A-Z]+)+"
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}"
_TAG_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_TAG_VALUE = f"(?:'[^'\\r\\n]*'|\"[^\"\\r\\n]*\"|{_TAG_NAME})"
_TAG = (
    rf"<(?:[!?][A-Za-z-][^>\r\n]*|/{_TAG_NAME}"
    rf"|{_TAG_NAME}(?: +(?:{_TAG_NAME} *= *{_TAG_VALUE}|{_TAG_NAME}))* */?) *>"
)
_URL_TAIL = r"[^ \t\n\f\r\"<>|.!?(){},-]"
_URL = r"(?ai:https?)://[^ \t\n\f\r\"<>|(){}]+" + _URL_TAIL
# the range from the comma to the underscore excludes capitals and digits, as in the original
_HOST = (
    r"(?:(?ai:www)\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
    r"|(?:[^ \t\n\f\r\"`'<>|.!?(){},-_$]+\.)+(?ai:com|net|org|edu))"
)
# the first host that a path follows leaves the most to the path
_HOST_AND_PATH = _HOST.replace(")+", ")+?") + rf"/[^ \t\n\f\r\"<>|()]+{_URL_TAIL}"
_EMAIL = (
    r"(?:(?ai:&lt;)|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|(){}\u00a0]*@"
    r"(?:[^ \t\n\f\r\"<>|(){}.\u00a0]+\.)*[^ \t\n\f\r\"<>|(){}.\u00a0]+(?:(?ai:&gt;)|>)?"
)
_FILE = (
    rf"(?:{_LETTER_OR_DIGIT}+\.)+(?ai:bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java"
    r"|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip)"
)
_PHONE = (
    r"(?:\([0-9]{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
    r"[0-9]{3,4}[- \u00a0]?[0-9]{3,5}"
)
_DOTTED_PHONE = r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
# words that keep their apostrophe
_APOSTROPHE_WORDS = [
    f"{_APOSTROPHE}(?ai:n){_APOSTROPHE}?",
    f"[lLdDjJ]{_APOSTROPHE}",
    f"(?ai:dunkin|somethin|ol){_APOSTROPHE}",
    f"{_APOSTROPHE}(?ai:em|till?|cause)",
    f"[A-HJ-XZn]{_ANY_APOSTROPHE}[{LETTERS}]{{2,}}",
    f"{_APOSTROPHE}[2-9]0(?ai:s)",
    f"[{LETTERS}]+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z][{LETTERS}]*",
    f"(?ai:o){_ANY_APOSTROPHE}(?ai:o)",
    r"(?ai:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)",
]
_SYMBOL_WORDS = (
    f"-(?ai:[lr][rcs]b)-|(?ai:c\\.d\\.s)|(?ai:pro-|anti-)|(?ai:s(?:&|&amp;)(?:p-500|ls))"
    f"|(?ai:cap){_APOSTROPHE}(?ai:n)|(?ai:c){_APOSTROPHE}(?ai:est)"
)
_SMILEY = r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]"
_EASTERN_SMILEY = (
    r"[\^x=~<>]\.\[\^x=~<>\]|[-^x=~<>']_[-^x=~<>']"
    r"|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)"
)
_ANYTHING = r"[\s\S]"
_NO_ASCII_LETTER = r"[^A-Za-z]"


def _table() -> list[tuple[str, str, Callable[[str], list[str]]]]:
    """(token, what must follow it, spelling) of every rule."""
    return [
        ("(?ai:can)", "(?ai:not)", _as_is),
        ("(?ai:gon|wan)", "(?ai:na)", _as_is),
        ("(?ai:got)", "(?ai:ta)", _as_is),
        ("(?ai:gim|lem)", "(?ai:me)", _as_is),
        (_TAG, "", _unbroken_tag),
        ("(?ai:&md;|&mdash;|&ndash;)|[\u0096\u0097\u2013\u2014\u2015]", "", _always("--")),
        ("(?ai:&amp;)", "", _always("&")),
        ("(?ai:&nbsp;)", "", _nothing),
        ("&(?ai:ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);", "", _as_is),
        # words, split before 's and n't
        (_WORD, _CLITIC, _without_soft_hyphens),
        ("[A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*", _NOT, _without_soft_hyphens),
        (_WORD, "", _without_soft_hyphens),
        *((words, "", _as_is) for words in _APOSTROPHE_WORDS),
        ("'(?ai:t)", "(?ai:was|is)", _as_is),
        ("(?ai:y)" + _APOSTROPHE, f"[{LETTERS}]", _as_is),
        (_URL, "", _as_is),
        (_HOST, "", _as_is),
        (_HOST_AND_PATH, "", _as_is),
        (_EMAIL, "", _as_is),
        (f"@[a-zA-Z_][a-zA-Z_0-9]*|#{_LETTER}+", "", _as_is),
        (_CLITIC, _NO_ASCII_LETTER, _plain_apostrophe),
        (_NOT, _NO_ASCII_LETTER, _plain_apostrophe),
        # numbers
        (f"{_DIGIT}{{1,2}}[-/]{_DIGIT}{{1,2}}[-/]{_DIGIT}{{2,4}}", "", _as_is),
        (f"[-+]?{_NUMBER}", "", _without_soft_hyphens),
        ("[\u207a\u207b\u208a\u208b]?(?:[⁰¹²³\u2074-\u2079]+|[\u2080-\u2089]+)", "", _as_is),
        (_FRACTION, "", _unbroken_tag),
        ("[¼½¾\u2153-\u215e]", "", _spelled(_FRACTIONS)),
        (_SYMBOL_WORDS, "", _plain_ampersand),
        (f"{_APOSTROPHE}[0-9]{{2}}", _SPACE_OR_END, _as_is),
        (_SLASHED, "", _as_is),
        ("[A-Z]*\\$|#", "", _as_is),
        ("[¢£¤¥\u0080\u20a0€]", "", _spelled(_CURRENCIES)),
        # compounds and abbreviations
        (_COMPOUND, "", _without_soft_hyphens),
        (_INITIALS, "", _plain_ampersand),
        (f"(?:{_ACRONYM}|{_COUNTRIES})\\.", "", _as_is),
        (_COUNTRIES, "", _as_is),
        (f"(?:{NAMES})\\.", _ANYTHING * 2, _as_is),
        (_DOTTED_COMPOUND, "", _without_soft_hyphens),
        (f"(?:{TITLES})\\.", "", _as_is),
        (
            "[A-Za-z]",
            rf"\.{_SPACE_OR_END}+(?:{SENTENCE_STARTS}|{_TAG}){_SPACE_OR_END}",
            _as_is,
        ),
        ("[A-Za-z]\\.", "", _as_is),
        (f"(?:{BEFORE_NUMBERS})\\.", f"{_SPACE}?{_DIGIT}", _as_is),
        (f"(?:{_WORD}|{_COMPOUND}|{_DOTTED_COMPOUND})\\.", "[,;:\u3001]", _without_soft_hyphens),
        (f"{_INITIALS}\\.", "[,;:\u3001]", _plain_ampersand),
        (_FILE, "[ \\t\u00a0\u2000-\u200a\u3000\\n.?!,]", _as_is),
        (_PHONE, "", _unbroken),
        (_DOTTED_PHONE, "", _as_is),
        # smileys and symbols
        (_SMILEY, "[^A-Za-z0-9]", _unbroken),
        (_EASTERN_SMILEY, "", _unbroken),
        ("(?ai:c)\\+\\+|(?ai:[cf])#", "", _as_is),
        ("<<|>>", "", _as_is),
        ("(?ai:&lt;)", "", _always("<")),
        ("(?ai:&gt;)", "", _always(">")),
        (f"{_SPACE}+", "", _nothing),
        ("-+", "", _dashes),
        ("\\.{3,5}|(?:\\.[ \u00a0]){2,4}\\.|[\u0085…]", "", _always("...")),
        ("[?!]+|_+|#+|@+|\\*+|(?:\\\\\\*){1,3}", "", _as_is),
        ("[][(){}]", "", _spelled(_BRACKETS)),
        ("'", "[A-Za-z][^ \\t\\n\\r\u00a0]", _always("`")),
        (_CLITIC, "", _plain_apostrophe),
        ("\"|''|'|&quot;|&apos;", "", _always("''")),
        (f"[`{''.join(_QUOTES)}]{{1,2}}", "", _spelled(_QUOTES)),
        (f"[{SYMBOLS}]", "", _as_is),
    ]
