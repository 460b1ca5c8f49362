"""One image looked at: what it is, what is wrong with it, and what tells copies of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captionkit.data.images import formats, in_turn, open_image
from captionkit.data.loader import MOST_WORKERS, usable_cores
from captionkit.doctor.jpeg import missing_scans
from captionkit.doctor.listing import Entry
from captionkit.doctor.signatures import guess
from captionkit.errors import ImageError

if TYPE_CHECKING:
    from captionkit.types import ImageSource

_NARROW = 10  # the longer side is so many times the shorter
_ORIENTATION = 0x0112
_CAMERA = {"MPO": "JPEG"}  # a photo with its smaller copies, or the other eye's, behind it
_COMMON_MODES = {"RGB", "L", "RGBA", "LA", "P", "PA", "YCbCr"}


@dataclass(slots=True)
class ImageFacts:
    """What is kept of an image.

    size: (width, height) as stored, None where the header cannot be read. file_hash, pixel_hash:
    16 bytes each; pixels are those of the upright RGB picture. look: its dHash, where wanted.
    problems: (kind, detail).
    """

    problems: list[tuple[str, str]]
    size: tuple[int, int] | None = None
    format: str = ""
    mode: str = ""
    file_hash: bytes | None = None
    pixel_hash: bytes | None = None
    look: int | None = None


@dataclass(frozen=True)
class Limits:
    """min_side: a shorter side below it is tiny; max_pixels: more is huge; looks: take dHashes."""

    min_side: int = 32
    max_pixels: int = 50_000_000
    looks: bool = False


def check_images(
    entries: Sequence[Entry], limits: Limits, threads: int | None = None
) -> Iterator[ImageFacts]:
    """The facts of each image, in order; decoded by threads, a few hundred ahead at most."""
    threads = threads or min(MOST_WORKERS, usable_cores())
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(entries), 256):
            some = entries[start : start + 256]
            yield from pool.map(lambda entry: check_image(entry.source, limits), some)


def check_image(source: str | Callable[[], ImageSource], limits: Limits) -> ImageFacts:
    """Look at one image; never raises for what is wrong with it."""
    facts = ImageFacts([])
    try:
        given: Any = source() if callable(source) else source
        if hasattr(given, "read_bytes") and not isinstance(given, os.PathLike):
            given = given.read_bytes()  # an image inside an archive
        if isinstance(given, (str, os.PathLike)):
            path = os.fspath(given)
            if problem := _no_file(path):
                facts.problems.append(problem)
                return facts
            with open(path, "rb") as file:
                facts.file_hash = hashlib.file_digest(file, _blake).digest()
            _look_at(path, path, facts, limits)
        elif isinstance(given, (bytes, bytearray)) and not given:
            facts.problems.append(("empty_file", ""))
        elif isinstance(given, (bytes, bytearray)):
            facts.file_hash = _blake(given).digest()
            _look_at(bytes(given), "", facts, limits)
        else:
            _look_at(given, "", facts, limits)
    except ImageError as error:
        facts.problems.append(_why(error, b""))  # of an address that gives no image
    except OSError as error:
        kind = "no_permission" if error.errno == errno.EACCES else "unreadable"
        facts.problems.append((kind, error.strerror or str(error)))
    return facts


def _blake(content: bytes | bytearray = b"") -> Any:
    return hashlib.blake2b(content, digest_size=16)


def _no_file(path: str) -> tuple[str, str] | None:
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno == errno.EACCES:
            return "no_permission", ""
        if error.errno == errno.ELOOP:
            return "missing", "a symbolic link that leads in a circle"
        link = os.path.islink(path)
        return "missing", f"a symbolic link to {os.readlink(path)}" if link else ""
    except ValueError as error:  # a null character in the name
        return "missing", str(error)
    if stat.S_ISDIR(status.st_mode):
        return "not_a_file", "a folder"
    if not stat.S_ISREG(status.st_mode):
        return "not_a_file", "a pipe, socket or device"
    return None if status.st_size else ("empty_file", "")


# ---- what a file says of itself ----------------------------------------------------------------


def _look_at(source: Any, path: str, facts: ImageFacts, limits: Limits) -> None:
    with contextlib.ExitStack() as stack:
        try:
            image = _opened(source, stack)
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\((\d+) pixels\)", str(error))
            facts.problems.append(("bomb", f"{int(pixels[1]):,} pixels" if pixels else str(error)))
            return
        except Exception:  # decoders raise anything; in words it is had from open_image
            facts.problems.append(_why(_refusal(source), _start(source)))
            return
        facts.size, facts.format, facts.mode = image.size, image.format or "", image.mode
        _check_header(image, path, facts, limits)
        with in_turn(image):
            try:
                picture = open_image(image)  # decodes it, the only time
            except ImageError as error:
                facts.problems.append(_why(error, b""))
                return
            _check_pixels(picture, facts, limits)
            _check_content(image, source, facts)


def _refusal(source: Any) -> ImageError:
    try:
        open_image(source)
    except ImageError as error:
        return error
    return ImageError("it cannot be read again")  # it changed in between


def _opened(source: Any, stack: contextlib.ExitStack) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return open_image(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return stack.enter_context(Image.open(file, formats=formats()))


def _start(source: Any) -> bytes:
    if not isinstance(source, str):
        return _content(source)[:256]
    with open(source, "rb") as file:
        return file.read(256)


def _why(error: ImageError, start: bytes) -> tuple[str, str]:
    # "Cannot read a.jpg: it is damaged (...)": here the name stands beside it
    reason = str(error).rpartition(": it is ")[2]
    if inner := re.fullmatch(r"damaged \((.*)\)", reason):
        reason = inner[1]
    if "truncated" in reason.lower() or "not enough image data" in reason.lower():
        return "truncated", reason
    return "unreadable", guess(start) or reason


def _check_header(image: Image.Image, path: str, facts: ImageFacts, limits: Limits) -> None:
    short, long = sorted(image.size)
    size = f"{image.width:,} x {image.height:,} pixels"
    if short < limits.min_side:
        facts.problems.append(("tiny", size))
    if long >= _NARROW * short and long > limits.min_side:
        facts.problems.append(("narrow", size))
    if short * long > limits.max_pixels:
        facts.problems.append(("huge", size))
    wanted = Image.registered_extensions().get(os.path.splitext(path)[1].lower(), "")
    wanted, actual = (_CAMERA.get(form, form) for form in (wanted, facts.format))
    if wanted and actual and actual != wanted:
        facts.problems.append(("wrong_extension", f"the content is {actual}"))
    if image.mode not in _COMMON_MODES:
        facts.problems.append(("odd_mode", image.mode))


def _check_content(image: Image.Image, source: Any, facts: ImageFacts) -> None:
    """What can be told of an image once it is decoded."""
    if image.has_transparency_data:
        least: Any = image.convert("RGBA").getchannel("A").getextrema()[0]
        if least < 255:
            facts.problems.append(("transparent", image.mode))
    if image.info.get("progressive") and missing_scans(_content(source)):
        facts.problems.append(("incomplete", ""))
    _check_metadata(image, facts)
    frames = _frames(image)  # last: where counting fails, the image is left between two of them
    if frames > 1 and facts.format not in _CAMERA:  # those are copies of one photo
        facts.problems.append(("animated", f"{frames:,} frames ({facts.format})"))


def _frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # Pillow raises anything for a broken frame that follows; the first is read
        return 1


def _content(source: Any) -> bytes:
    if isinstance(source, str):
        with open(source, "rb") as file:
            return file.read()
    return source if isinstance(source, bytes) else b""


def _check_metadata(image: Image.Image, facts: ImageFacts) -> None:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        broken = bool(image.info.get("exif")) and not len(image.getexif())
    except Exception:  # Pillow raises anything for a broken block
        orientation, broken = 1, True
    if broken:
        facts.problems.append(("broken_metadata", "EXIF"))
    elif orientation in range(2, 9):
        facts.problems.append(("rotated", f"EXIF orientation {orientation}"))
    profile = image.info.get("icc_profile")
    # the signature that every profile has (ICC.1:2022, 7.2)
    if profile and profile[36:40] != b"acsp":
        facts.problems.append(("broken_metadata", "colour profile"))


# ---- pixels ------------------------------------------------------------------------------------


def _check_pixels(picture: Image.Image, facts: ImageFacts, limits: Limits) -> None:
    facts.pixel_hash = _blake(b"%d x %d " % picture.size + picture.tobytes()).digest()
    extrema: Sequence[Any] = picture.getextrema()
    if all(low == high for low, high in extrema) and picture.size != (1, 1):
        facts.problems.append(("blank", "rgb({}, {}, {})".format(*(low for low, _ in extrema))))
    if limits.looks:
        facts.look = difference_hash(picture)


def difference_hash(picture: Image.Image) -> int:
    """64 bits: whether brightness rises from each of 9 x 8 fields to the next in its row.

    The dHash of N. Krawetz, "Kind of Like That" (2013).
    """
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    rises = grey[:, 1:] > grey[:, :-1]
    return int.from_bytes(np.packbits(rises).tobytes(), "big")
