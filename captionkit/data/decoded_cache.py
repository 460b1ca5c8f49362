"""Decoded images kept in a memory-mapped file, so that a later epoch or run only copies them.

A file has one slot an image, found by a hash of the image's key, as in an open-addressed hash
table: a header, an index of (key, checksum) and the pixels. Nothing is locked to read or to write.
A slot counts only if the checksum over its key and pixels holds, so that one half written, damaged,
or written by two processes at once is a slot to fill again, and never wrong pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, __version__, features

import captionkit
from captionkit.data.dataset import cache_dir
from captionkit.errors import ConfigError, OutputError
from captionkit.whole_files import whole_file

if TYPE_CHECKING:
    from captionkit.data.preprocess import Preprocessor
    from captionkit.types import ImageSource

LEFT_FREE = 5e9  # bytes of the disk that are left to checkpoints and to others

_FORM = 1  # of the file; a change makes all files anew
_HEADER = 4096  # bytes
_ENTRY = struct.Struct("<16sI")  # key and checksum; zeros: the slot is free
_PROBES = 128  # slots in a row that a key may be in
_FREE = bytes(16)


class DecodedCache:
    """The images of one preprocessing: uint8 `(height, width, 3)` by the key of their source.

    Made by `open`. Threads and processes may share a file.
    """

    def __init__(self, path: Path, header: bytes, slots: int, shape: tuple[int, int, int]):
        self.path = path
        self.slots = slots
        self.shape = shape
        self.filling = True  # until the disk is full
        self._image_bytes = shape[0] * shape[1] * shape[2]
        self._pixels_at = _HEADER + slots * _ENTRY.size
        self._warned = threading.Lock()
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(self._map) != self._file_bytes or self._map[:_HEADER] != header:
            raise ValueError(f"{path} is damaged")

    @classmethod
    def open(
        cls, preprocess: Preprocessor, fast_jpeg: bool, gigabytes: float, images: int
    ) -> DecodedCache:
        """The cache of this preprocessing, with room for so many images if the bound allows.

        gigabytes: of 10^9 bytes, over all files of the cache; those used longest ago are deleted
        to make room. Raises ConfigError for a bound below one image, and OutputError where the
        cache folder cannot be written.
        """
        import filelock

        shape = (preprocess.height, preprocess.width, 3)
        slot_bytes = shape[0] * shape[1] * 3 + _ENTRY.size
        most = int((gigabytes * 1e9 - _HEADER) // slot_bytes)
        if most < 1:
            raise ConfigError(
                f"image_cache_gb={gigabytes} has no room for one image: one of {shape[0]} x "
                f"{shape[1]} pixels takes {slot_bytes / 1e9:.6f} GB. Raise it, or set it to 0."
            )
        # in coarse steps, so that a dataset that grows a little keeps its file
        wanted = images + images // 4 + 1
        step = 1 << max(0, wanted.bit_length() - 3)
        slots = min(most, -(-wanted // step) * step)
        header = _header(preprocess, fast_jpeg, slots)
        name = hashlib.blake2b(header, digest_size=12).hexdigest()
        folder = cache_dir() / "decoded"
        path = folder / f"{shape[0]}x{shape[1]}-{slots}-{name}.pixels"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / ".lock"):
                return cls._opened(path, header, slots, shape, gigabytes)
        except OSError as error:
            raise OutputError(
                f"The decoded images cannot be kept in {folder} ({error.strerror or error}). Set "
                "CAPTIONKIT_CACHE to a folder that can be written, or image_cache_gb to 0."
            ) from None

    @classmethod
    def _opened(
        cls, path: Path, header: bytes, slots: int, shape: tuple[int, int, int], gigabytes: float
    ) -> DecodedCache:
        size = _HEADER + slots * (_ENTRY.size + shape[0] * shape[1] * shape[2])
        if path.exists():
            os.utime(path)
            with contextlib.suppress(ValueError):
                return cls(path, header, slots, shape)
            warnings.warn(f"{path} is damaged; the images are decoded anew.", stacklevel=4)
            path.unlink()
        _evict(path.parent, int(gigabytes * 1e9) - size)
        with whole_file(path) as partial, open(partial, "wb") as file:
            file.write(header)
            file.truncate(size)  # sparse: it takes the disk that is filled
        return cls(path, header, slots, shape)

    def read(
        self, read_image: Callable[[ImageSource], np.ndarray], source: ImageSource
    ) -> np.ndarray:
        """The pixels of an image: from the cache, or else by `read_image` and then kept."""
        key = key_of(source)
        if key is None:
            return read_image(source)
        pixels = self.get(key)
        if pixels is None:
            pixels = read_image(source)
            self.put(key, pixels)
        return pixels

    def get(self, key: bytes) -> np.ndarray | None:
        """A copy of the pixels that are kept under a key of 16 bytes, if there are any."""
        slot, checksum = self._find(key)
        if slot is None or checksum is None:
            return None
        start = self._pixels_at + slot * self._image_bytes
        # copied before it is checked: another process may be writing there
        pixels = np.frombuffer(self._map, np.uint8, self._image_bytes, start).copy()
        return pixels.reshape(self.shape) if _checksum(key, pixels) == checksum else None

    def put(self, key: bytes, pixels: np.ndarray) -> None:
        """Keep the pixels of an image, if there is room."""
        slot, _ = self._find(key)
        if slot is None or not self.filling:
            return
        pixels = np.ascontiguousarray(pixels)
        try:
            if shutil.disk_usage(self.path.parent).free < LEFT_FREE:
                raise OSError(f"less than {LEFT_FREE / 1e9:g} GB of the disk are free")
            # written, not mapped: on a full disk that is an error instead of the end of the process
            with open(self.path, "r+b", buffering=0) as file:
                file.seek(self._pixels_at + slot * self._image_bytes)
                file.write(pixels.data)
                file.seek(_HEADER + slot * _ENTRY.size)
                file.write(_ENTRY.pack(key, _checksum(key, pixels)))
        except OSError as error:
            self._stop_filling(error)

    @property
    def _file_bytes(self) -> int:
        return self._pixels_at + self.slots * self._image_bytes

    def _find(self, key: bytes) -> tuple[int | None, int | None]:
        """(slot, checksum) of a key; (slot, None): a free one; (None, None): there is no room."""
        probes = min(_PROBES, self.slots)
        first = int.from_bytes(key[:8], "little") % (self.slots - probes + 1)
        start = _HEADER + first * _ENTRY.size
        entries = self._map[start : start + probes * _ENTRY.size]
        for number, (found, checksum) in enumerate(_ENTRY.iter_unpack(entries)):
            if found == key:
                return first + number, checksum
            if found == _FREE:
                return first + number, None
        return None, None

    def _stop_filling(self, error: OSError) -> None:
        with self._warned:
            if self.filling:
                self.filling = False
                warnings.warn(
                    f"No more decoded images are kept in {self.path.parent}: "
                    f"{error.strerror or error}.",
                    stacklevel=2,
                )


def key_of(source: Any) -> bytes | None:
    """16 bytes that stand for an image: a file's path, size and time, or what was encoded.

    None for what is decoded already, and for what cannot be read.
    """
    if isinstance(source, (Image.Image, np.ndarray)):
        return None
    try:
        if isinstance(source, (str, os.PathLike)):
            path = os.path.abspath(os.fspath(source))
            status = os.stat(path)
            name = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
            return hashlib.blake2b(os.fsencode(name), digest_size=16).digest()
        content = source if isinstance(source, (bytes, bytearray)) else source.read_bytes()
        return hashlib.blake2b(content, digest_size=16, person=b"bytes").digest()
    except Exception:  # reading it says what is wrong
        return None


def _header(preprocess: Preprocessor, fast_jpeg: bool, slots: int) -> bytes:
    """All that the pixels of a file depend on, as JSON."""
    settings = {
        "form": _FORM,
        "captionkit": captionkit.__version__,
        "pillow": __version__,
        "libjpeg": features.version("libjpeg_turbo") or features.version("jpg"),
        "size": preprocess.size,
        "crop": preprocess.crop,
        "resample": preprocess.resample,
        "fast_jpeg": fast_jpeg,
        "slots": slots,
    }
    return json.dumps(settings).encode().ljust(_HEADER)


def _checksum(key: bytes, pixels: np.ndarray) -> int:
    return zlib.crc32(pixels.data, zlib.crc32(key))


def _evict(folder: Path, room: int) -> None:
    """Delete the files used longest ago until the others take no more than `room` bytes."""
    for leftover in folder.glob("*.partial"):  # of a process that was killed
        leftover.unlink()
    files = sorted(folder.glob("*.pixels"), key=lambda file: file.stat().st_mtime)
    taken = sum(file.stat().st_size for file in files)
    for file in files:
        if taken <= room:
            return
        taken -= file.stat().st_size
        file.unlink()
