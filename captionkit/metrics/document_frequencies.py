"""In how many images' references each n-gram occurs: what CIDEr weighs n-grams by."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captionkit.errors import MetricError
from captionkit.metrics.pairs import require_references
from captionkit.metrics.word_corpus import MAX_ORDER, KnownNgrams, WordCorpus

_FORMAT = 1
_LARGEST = 2**31  # bytes; those of all of COCO take a twentieth


@dataclass(frozen=True)
class DocumentFrequencies:
    """The n-grams up to order 4 of a set of references, each with the number of its images.

    Saved as npz (arrays only, nothing that could run). words: the vocabulary. images: their
    number. ngrams: a table for each order. counts: for each order, images an n-gram. tokenized:
    whether the references were tokens already.
    """

    words: tuple[str, ...]
    images: int
    ngrams: tuple[KnownNgrams, ...]
    counts: tuple[np.ndarray, ...]
    tokenized: bool = False

    @classmethod
    def from_references(
        cls, references: Iterable[Sequence[str]], tokenized: bool = False
    ) -> DocumentFrequencies:
        """Count over the references of each image. Raises `MetricError` where there is none."""
        corpus = WordCorpus(tokenized=tokenized)
        captions_per_image = []
        for index, captions in enumerate(references):
            captions = [captions] if isinstance(captions, str) else captions
            require_references(captions, index)
            for caption in captions:
                corpus.add(caption)
            captions_per_image.append(len(captions))
        if not captions_per_image:
            raise MetricError("There are no references to count document frequencies over.")
        images = np.repeat(np.arange(len(captions_per_image)), captions_per_image)
        tables, counts = [], []
        for ngrams in corpus.ngrams():
            pairs = np.unique(images[ngrams.caption] * ngrams.count + ngrams.gram)
            tables.append(ngrams.distinct)
            counts.append(np.bincount(pairs % ngrams.count, minlength=ngrams.count))
        words = tuple(corpus.vocabulary)
        return cls(words, len(captions_per_image), tuple(tables), tuple(counts), tokenized)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to a file, whose name ends in .npz; returns its path."""
        path = Path(path)
        if path.suffix != ".npz":
            raise MetricError(f"Document frequencies are saved as .npz, not as {path.name}.")
        arrays: dict[str, Any] = {
            "format": np.array([_FORMAT, self.images, self.tokenized]),
            "words": np.frombuffer("\n".join(self.words).encode(), dtype=np.uint8),
        }
        for order, (table, counts) in enumerate(zip(self.ngrams, self.counts, strict=True), 1):
            arrays[f"prefix{order}"] = table.prefix.astype(np.int32)
            arrays[f"last{order}"] = table.last.astype(np.int32)
            arrays[f"count{order}"] = counts.astype(np.int32)
        try:
            np.savez_compressed(path, **arrays)
        except OSError as error:
            raise MetricError(f"Cannot write {path}: {error.strerror}.") from None
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DocumentFrequencies:
        """Read what `save` wrote. Raises `MetricError` for any other file."""
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                if sum(info.file_size for info in file.zip.infolist()) > _LARGEST:
                    raise ValueError(f"it unpacks to more than {_LARGEST // 2**30} GiB")
                arrays = {name: file[name] for name in file.files}
            return _checked(arrays)
        except FileNotFoundError:
            raise MetricError(f"There is no file {path} with document frequencies.") from None
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, MemoryError) as error:
            reason = f"{type(error).__name__}: {error}"
        raise MetricError(
            f"{path} does not hold document frequencies, or is damaged ({reason}). "
            "Make it with DocumentFrequencies.from_references(...).save(...)."
        )


def _checked(arrays: dict[str, np.ndarray]) -> DocumentFrequencies:
    version, images, tokenized = (int(value) for value in arrays["format"])
    if version != _FORMAT or images < 1:
        raise ValueError(f"format {version} of {images} images, expected format {_FORMAT}")
    text = arrays["words"].tobytes().decode()
    words = tuple(text.split("\n")) if text else ()
    tables, counts = [], []
    size = 0
    for order in range(1, MAX_ORDER + 1):
        prefix, last, count = (arrays[f"{name}{order}"] for name in ("prefix", "last", "count"))
        if not len(prefix) == len(last) == len(count):
            raise ValueError(f"tables of order {order} differ in length")
        for name, ids, limit in (("prefix", prefix, size), ("last", last, len(words))):
            if (
                (order > 1 or name == "last")
                and ids.size
                and not 0 <= ids.min() <= ids.max() < limit
            ):
                raise ValueError(f"{name} of order {order} is out of range")
        if count.size and not 0 <= count.min() <= count.max() <= images:
            raise ValueError(f"counts of order {order} are out of range")
        tables.append(KnownNgrams(prefix.astype(np.int64), last.astype(np.int64)))
        counts.append(count.astype(np.int64))
        size = len(last)
    return DocumentFrequencies(words, images, tuple(tables), tuple(counts), bool(tokenized))
