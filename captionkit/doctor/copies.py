"""The same picture, id or captions in several places; across splits that is leakage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from captionkit.doctor.captions import folded
from captionkit.doctor.findings import Item
from captionkit.doctor.images import ImageFacts
from captionkit.doctor.listing import Entry, Listing

_NEAR = 3  # bits of 64; up to it, one of four bands of 16 bits is equal
_MOST_IN_BAND = 200  # larger bands are of flat pictures, which resemble one another in nothing


def find_copies(
    listing: Listing, facts: Sequence[ImageFacts], names: Sequence[str]
) -> dict[str, list[Item]]:
    """Cases of copies, by kind; `facts` and `names` go with the entries."""
    entries = listing.entries
    same_file = _groups(fact.file_hash for fact in facts)
    same_picture = _groups(fact.pixel_hash for fact in facts)
    cases: dict[str, list[Item]] = defaultdict(list)
    leaked: set[tuple[int, ...]] = set()
    for group in [*same_picture, *same_file]:
        # a file that cannot be decoded is in no group of pictures
        if len({entries[i].split for i in group}) > 1 and tuple(group) not in leaked:
            leaked.add(tuple(group))
            cases["leak_image"].append(_item(group, names))
    in_group_of_file = {i: n for n, group in enumerate(same_file) for i in group}
    for kind, groups in (("same_bytes", same_file), ("same_pixels", same_picture)):
        for group in _within_splits(groups, entries):
            all_one_file = len({in_group_of_file.get(i, -1 - i) for i in group}) == 1
            if kind == "same_bytes" or not all_one_file:
                cases[kind].append(_item(group, names))
    looks = _near([fact.look for fact in facts])
    exact = {i: n for n, group in enumerate(same_picture) for i in group}
    for group in looks:
        if len({exact.get(i, -1 - i) for i in group}) > 1:
            cases["near_duplicate"].append(_item(group, names))
    _find_leaked_texts(listing, facts, names, cases)
    return cases


def _find_leaked_texts(
    listing: Listing,
    facts: Sequence[ImageFacts],
    names: Sequence[str],
    cases: dict[str, list[Item]],
) -> None:
    entries = listing.entries
    if len({entry.split for entry in entries}) < 2:
        return

    def other_pictures(group: Sequence[int]) -> bool:
        splits = len({entries[i].split for i in group})
        # one that cannot be read is not known to be another
        known = {facts[i].pixel_hash for i in group} - {None}
        return splits > 1 and len(known) > 1

    if not listing.ids_are_paths:
        for group in _groups(entry.image_id for entry in entries):
            if other_pictures(group):
                cases["leak_id"].append(_item(group, names))
    sets = _groups(tuple(sorted(map(folded, entry.captions))) or None for entry in entries)
    for group in sets:
        if other_pictures(group):
            said = " | ".join(entries[group[0]].captions)
            cases["leak_captions"].append(_item(group, names, said))


def _item(group: Sequence[int], names: Sequence[str], detail: str = "") -> Item:
    return Item(tuple(names[i] for i in group), detail, tuple(group))


def _groups(keys: Iterable[Hashable]) -> list[list[int]]:
    """Positions of equal keys, where there are several; None is equal to nothing."""
    found: defaultdict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        if key is not None:
            found[key].append(i)
    return [group for group in found.values() if len(group) > 1]


def _within_splits(groups: Iterable[list[int]], entries: Sequence[Entry]) -> list[list[int]]:
    """The parts of groups that lie in one split, where they are still several."""
    parts: list[list[int]] = []
    for group in groups:
        by_split: defaultdict[str, list[int]] = defaultdict(list)
        for i in group:
            by_split[entries[i].split].append(i)
        parts += [part for part in by_split.values() if len(part) > 1]
    return parts


def _near(looks: Sequence[int | None]) -> list[list[int]]:
    """Groups of positions whose hashes are linked by differences of at most `_NEAR` bits."""
    places = [i for i, look in enumerate(looks) if look is not None]
    values = np.array([looks[i] for i in places], np.uint64)
    parent = list(range(len(places)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for band in range(4):
        keys = (values >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        for group in _groups(keys.tolist()):
            if len(group) > _MOST_IN_BAND:
                continue
            members = values[group]
            bits = np.unpackbits((members[:, None] ^ members[None, :])[..., None].view(np.uint8),
                                 axis=-1).sum(-1)  # fmt: skip
            for a, b in np.argwhere(np.triu(bits <= _NEAR, 1)).tolist():
                parent[root(group[b])] = root(group[a])
    linked = _groups(root(i) for i in range(len(places)))
    return [[places[i] for i in group] for group in linked]
