"""The images below a folder, in the order of their names, without holding them all."""

from __future__ import annotations

import os
from collections.abc import Iterator

from captionkit.bulk.item import Item
from captionkit.data.files import IMAGE_ENDINGS


def images_below(root: str) -> Iterator[Item]:
    """Every image below a folder, folder by folder, in the order of names.

    Hidden files and folders are passed over. A linked folder is entered if it leads to somewhere
    else: not if that lies in the folder itself or around it, and no folder is entered twice, so
    links may form loops. A folder that cannot be listed is an item with a problem.
    """
    root = os.path.abspath(root)
    real_root = os.path.realpath(root)
    entered: set[tuple[int, int]] = set()
    # a stack of iterators rather than recursion: folders may be nested deeper than Python calls
    stack = [_entries(root, entered)]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
        elif isinstance(found, Item):
            yield Item(found.where, os.path.relpath(found.where, root), "", found.problem)
        else:
            path, is_folder = found
            if not is_folder:
                yield Item(path, path[len(root.rstrip("/")) + 1 :], path)
            elif not (os.path.islink(path) and _same_tree(os.path.realpath(path), real_root)):
                stack.append(_entries(path, entered))


def _entries(folder: str, entered: set[tuple[int, int]]) -> Iterator[tuple[str, bool] | Item]:
    """(path, whether it is a folder) of what is wanted in one folder, sorted by name."""
    try:
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in entered:
            return
        entered.add((place.st_dev, place.st_ino))
        folders, names = set(), []
        with os.scandir(folder) as listing:
            for entry in listing:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if _is_folder(entry):
                    folders.add(entry.name)
                elif os.path.splitext(entry.name)[1].lower() not in IMAGE_ENDINGS:
                    continue
                names.append(entry.name)
    except OSError as error:
        yield Item(folder, folder, "", f"this folder cannot be listed: {error.strerror}")
        return
    names.sort()
    for name in names:
        yield os.path.join(folder, name), name in folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _same_tree(folder: str, root: str) -> bool:
    """Whether one of the two lies in the other."""
    inner, outer = f"{folder.rstrip('/')}/", f"{root.rstrip('/')}/"
    return inner.startswith(outer) or outer.startswith(inner)
