"""Image files that others made."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from broken_images import CASES, png_chunk, png_header
from fuzz.harness import fuzz
from fuzz.mutations import NUMBERS, Dice, any_file
from PIL import Image

from captionkit.data.images import open_image
from captionkit.data.preprocess import Preprocessor
from captionkit.doctor.images import Limits, check_image

SMALL = Image.fromarray(np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3))


def saved(form: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    SMALL.convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
FORMS: list[tuple[str, dict[str, object]]] = [
    ("PNG", {}), ("PNG", {"mode": "RGBA"}), ("PNG", {"mode": "P"}), ("PNG", {"mode": "L"}),
    ("PNG", {"mode": "1"}), ("PNG", {"mode": "I;16"}), ("PNG", {"mode": "LA"}),
    ("PNG", {"exif": EXIF}), ("JPEG", {}), ("JPEG", {"progressive": True}),
    ("JPEG", {"mode": "CMYK"}), ("JPEG", {"exif": EXIF}), ("GIF", {}),
    ("GIF", {"save_all": True, "append_images": [SMALL.rotate(90)]}), ("BMP", {}),
    ("BMP", {"mode": "P"}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"mode": "F"}), ("TIFF", {"compression": "tiff_adobe_deflate"}), ("PPM", {}),
    ("ICO", {}), ("TGA", {}), ("PCX", {}), ("DDS", {}), ("SGI", {}), ("ICNS", {}), ("EPS", {}),
    ("WEBP", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {}), ("AVIF", {}),
]  # fmt: skip
Image.init()
SEEDS = [
    *(saved(form, **options) for form, options in FORMS if form in Image.SAVE),
    *(
        case.content
        for case in CASES
        if isinstance(case.content, bytes) and len(case.content) < 3000
    ),
]
TOKENS = [
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"PLTE",
    b"acTL",
    b"\xff\xc0",
    b"\xff\xc4",
    b"\xff\xda",
    b"\xff\xe1",
    b"Exif\0\0",
    b"RIFF",
    b"VP8X",
    b"MM\0*",
    b"II*\0",
]

# one of Pillow's 179 million pixels in colour, with its transparency, and its copy on white
LARGEST = 3 * 2**30


def large_png(dice: Dice) -> bytes:
    """A header that announces any size, checksums and all, and data that do not go with it."""
    sides = [1, 2, 100, 5000, 65_535, 100_000, 2**31 - 1, 2**32 - 1]
    header = png_header(dice.pick(sides), dice.pick(sides), dice.pick([1, 8, 16]), dice.roll(7))
    data = zlib.compress(bytes(dice.roll(10_000)))
    text = b"zTXt", b"note\0\0" + zlib.compress(bytes(dice.pick([10, 10**4, 2**21])))
    number = png_chunk(b"gAMA", struct.pack(">I", dice.pick(NUMBERS) % 2**32))
    parts = [number, png_chunk(*text), png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    return header + b"".join(part for part in parts if dice.roll(4))


MAKE = any_file(
    SEEDS, TOKENS, lambda dice: large_png(dice) if dice.roll(8) == 7 else dice.pick(SEEDS)
)


def test_open_image(tmp_path):
    file = tmp_path / "a.jpg"
    preprocess = Preprocessor.square(8)

    def read(content: bytes) -> None:
        file.write_bytes(content)
        picture = open_image(content)
        assert picture.mode == "RGB"
        assert preprocess.read(str(file), fast_jpeg=True).shape == (8, 8, 3)

    fuzz("image", MAKE, read, memory=LARGEST)


def test_doctor_of_images():
    def read(content: bytes) -> None:
        facts = check_image(lambda: content, Limits(looks=True))
        if any(kind == "unreadable" for kind, _ in facts.problems):
            open_image(content)  # what it says is so: this is refused

    fuzz("doctor's images", MAKE, read, memory=LARGEST)
