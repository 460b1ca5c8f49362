"""Any image that a user may hand over, as an upright RGB picture."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captionkit.data.fetch import fetch, is_url
from captionkit.errors import ImageError

if TYPE_CHECKING:
    from captionkit.types import ImageSource

_FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM",
    "ICO", "TGA", "PCX", "JXL",
)  # fmt: skip
_ALONE = 2**25  # pixels; of larger pictures only one is decoded at a time, to bound the memory
_one_large = threading.Lock()
_ORIENTATION = 0x0112  # EXIF tag; its values say how the stored pixels have to be turned
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: ImageSource, allow_urls: bool = False) -> Image.Image:
    """Open a path, encoded bytes, a PIL image, an array or (if allowed) an http(s) URL.

    Also anything with a method `read_bytes`, such as an image that lies inside an archive. Arrays
    are `(height, width)` or `(height, width, 1 | 3 | 4)`: uint8, uint16, bool, or float in [0, 1].
    Transparency is composited on white, 16 bits are scaled to 8, the EXIF orientation is applied,
    and of an animation the first frame is taken. Raises ImageError, which names the source and the
    reason.
    """
    try:
        if isinstance(source, Image.Image):
            source.load()
            return _rgb(_upright(source))
        if isinstance(source, np.ndarray):
            return _rgb(_from_array(source))
        with Image.open(_file(source, allow_urls), formats=formats()) as image, in_turn(image):
            image.load()
            return _rgb(_upright(image))
    except ImageError as error:
        raise ImageError(f"Cannot read {describe(source)}: {error}") from None
    except Exception as error:  # decoders raise anything: SyntaxError, struct.error, ...
        raise ImageError(f"Cannot read {describe(source)}: {_reason(error)}") from None


def in_turn(image: Image.Image) -> contextlib.AbstractContextManager[Any]:
    """Within the block no other thread decodes a large picture, where this one is large."""
    return _one_large if image.width * image.height > _ALONE else contextlib.nullcontext()


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that are read, of those that this Pillow can: photos and drawings.

    Not the rest of what it knows: EPS is a program that it has Ghostscript run.
    """
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def encode_png(source: ImageSource) -> bytes:
    """The pixels that `open_image` gives, losslessly. Raises ImageError."""
    buffer = io.BytesIO()
    open_image(source).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def describe(source: object) -> str:
    """A source in a few words, for messages."""
    if isinstance(source, Image.Image):
        return f"the {source.mode} image of {source.width} x {source.height} pixels"
    if isinstance(source, np.ndarray):
        return f"the array of shape {source.shape} and type {source.dtype}"
    if isinstance(source, (bytes, bytearray)):
        return f"the image in {len(source):,} bytes"
    return str(source)


# ---- where the bytes come from -----------------------------------------------------------------


def _file(source: object, allow_urls: bool) -> Path | io.BytesIO:
    if is_url(source):
        if not allow_urls:
            raise ImageError("it is a URL, and a dataset's URLs are not fetched; download it first")
        return _content(fetch(str(source)))
    if hasattr(source, "read_bytes") and not isinstance(source, os.PathLike):
        return _content(source.read_bytes())
    if isinstance(source, (bytes, bytearray)):
        return _content(source)
    if not isinstance(source, (str, os.PathLike)):
        raise ImageError(
            "expected a path, a URL, bytes, a PIL image or a numpy array, "
            f"found {type(source).__name__}"
        )
    path = Path(source)
    if path.is_dir():
        raise ImageError("it is a folder, not an image")
    if not path.exists():
        raise ImageError("there is no such file")
    if not path.is_file():
        raise ImageError("it is not a regular file")
    with path.open("rb") as file:
        _refuse_empty(file.read(1))
    return path


def _content(content: bytes | bytearray) -> io.BytesIO:
    _refuse_empty(content)
    return io.BytesIO(content)


def _refuse_empty(content: bytes | bytearray) -> None:
    if not content:
        raise ImageError("it is empty (0 bytes)")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image, or of a kind that Pillow cannot read"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it is too large to decode safely ({error})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return f"it is damaged ({text})"


# ---- pixels ------------------------------------------------------------------------------------


def orientation_of(image: Image.Image) -> int:
    """How the stored pixels have to be turned, by EXIF: 1 (not at all) to 8."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        return orientation if orientation in _UPRIGHT else 1
    except Exception:  # a broken EXIF block does not spoil the pixels
        return 1


def _upright(image: Image.Image) -> Image.Image:
    # read after load(): Pillow turns TIFFs itself and then drops the tag
    orientation = orientation_of(image)
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation])


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _eight_bits(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> Image.Image:
    """Grey values of more than 8 bits, `(height, width)`, scaled to 0..255.

    Integers are 16 bits wide, as in PNG and TIFF. Floats are taken as [0, 1] if they fit, else as
    [0, 255]; for what lies outside of these ranges there is no convention, and its own minimum and
    maximum become black and white.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("it holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    white = (1.0 if high <= 1 else 255.0) if values.dtype.kind == "f" else 65535.0
    black = 0.0
    if low < 0 or high > white:
        black, white = low, high
    scaled = (values.astype(np.float64) - black) * (255.0 / max(white - black, 1e-12))
    return Image.fromarray(np.round(scaled).astype(np.uint8))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not array.size or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError("expected the shape (height, width) or (height, width, 1, 3 or 4)")
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError(
                f"floats should be in [0, 1], found {array.min()} to {array.max()}; "
                "if they go up to 255, pass them as uint8"
            )
        array = np.round(array.astype(np.float64) * 255)
    elif array.dtype == np.uint16:
        array = np.round(array / 257)
    elif array.dtype == bool:
        array = array * np.uint8(255)
    elif array.dtype != np.uint8:
        raise ImageError("expected uint8, uint16, bool, or float in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))
