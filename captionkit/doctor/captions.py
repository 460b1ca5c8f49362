"""What may be wrong with captions as text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from captionkit.doctor.findings import Item, printable
from captionkit.doctor.listing import Entry

_SHOWN = 120  # characters of a caption
_ENOUGH = 10  # captions, before "most of them are one" means anything

# what bytes above 0x7f become when they are read as Latin-1, or as Windows-1252
_CODE_OF = {chr(code): code for code in range(0x80, 0x100)} | {
    bytes([code]).decode("cp1252", "ignore") or chr(code): code for code in range(0x80, 0xA0)
}
_FOREIGN = re.compile(f"[{re.escape(''.join(_CODE_OF))}]{{2,}}")


def check_captions(
    entries: Sequence[Entry], names: Sequence[str], max_words: int
) -> dict[str, list[Item]]:
    """Cases by kind; `names` go with the entries."""
    cases: dict[str, list[Item]] = defaultdict(list)
    images: defaultdict[str, list[int]] = defaultdict(list)  # by caption
    spelled: dict[str, str] = {}
    total = 0
    for i, (entry, name) in enumerate(zip(entries, names, strict=True)):

        def add(kind: str, detail: str = "", i: int = i, name: str = name) -> None:
            cases[kind].append(Item((name,), detail, (i,)))

        texts = [text for text in entry.captions if text.strip()]
        if not entry.captions:
            add("no_caption")
        elif len(texts) < len(entry.captions):
            add("empty_caption")
        keys = [folded(text) for text in texts]
        for key, text in dict(zip(keys, texts, strict=True)).items():
            images[key].append(i)
            spelled.setdefault(key, text)
        repeated = [key for key, count in Counter(keys).items() if count > 1]
        if repeated:
            add("repeated_caption", shortened(spelled[repeated[0]]))
        for text in texts:
            if damage := _damage(text):
                add("encoding_damage", f"{damage}: {shortened(text)}")
            if (words := len(text.split())) > max_words:
                add("long_caption", f"{words} words: {shortened(text)}")
        total += len(texts)
    _check_shared(images, spelled, names, total, len(entries), cases)
    return cases


def folded(text: str) -> str:
    """A caption as it is compared: composed, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def shortened(text: str) -> str:
    """The start of a caption, on one line."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def looks_misread(text: str) -> str | None:
    """UTF-8 that was read as Windows-1252 or Latin-1, as it should be; None where it is not.

    Runs of characters from the upper half of the code page, which make valid UTF-8 if they are
    taken for bytes, hardly occur otherwise.
    """
    repaired = _FOREIGN.sub(_repaired, text)
    return repaired if repaired != text else None


def _repaired(match: re.Match[str]) -> str:
    codes = bytes(_CODE_OF[c] for c in match[0])
    try:
        return codes.decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


def _damage(text: str) -> str:
    if "\N{REPLACEMENT CHARACTER}" in text:
        return "a replacement character"
    if (repaired := looks_misread(text)) is not None:
        return f"perhaps {shortened(repaired)!r}"
    control = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs")), None)
    # tabs and line breaks inside a caption are white space like any other
    return f"the character U+{ord(control):04X}" if control and not control.isspace() else ""


def _check_shared(
    images: dict[str, list[int]],
    spelled: dict[str, str],
    names: Sequence[str],
    captions: int,
    count: int,
    cases: dict[str, list[Item]],
) -> None:
    shared = sorted((key for key in images if len(images[key]) > 1), key=lambda k: -len(images[k]))
    for key in shared:
        group = images[key]
        detail = f"on {len(group):,} images: {shortened(spelled[key])}"
        item = Item(tuple(names[i] for i in group), detail, tuple(group))
        if 2 * len(group) > count and captions >= _ENOUGH:
            cases["constant_captions"].append(item)
        else:
            cases["shared_caption"].append(item)
