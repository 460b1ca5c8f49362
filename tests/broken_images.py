"""A fixed set of image files, most of them broken in one way each, made by code.

Each `Case` says what `captionkit doctor` is to find, and what `open_image` is to do: raise an
ImageError that matches a pattern, or give a picture that is compared with one built in numpy.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 64, 96


def scene() -> np.ndarray:
    """Smooth colours with a red corner at the upper left: JPEG keeps it, turning shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([40 + x, 60 + 2 * y, 200 - x // 2 - y], -1).astype(np.uint8)
    pixels[:20, :30] = (220, 30, 40)
    return pixels


def encoded(image: Image.Image | np.ndarray, form: str, **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


SCENE = scene()
JPEG = encoded(SCENE, "JPEG", quality=95, subsampling=0)
PNG = encoded(SCENE, "PNG")
GREY = SCENE.astype(np.float64).mean(-1)


@dataclass(frozen=True)
class Case:
    """A file, the kinds of findings it gives, and what opening it gives.

    content: bytes, or a function that makes something at the path. opens: a pattern that the
    ImageError matches, or the upright RGB pixels `(height, width, 3)`. tolerance: the largest mean
    difference from them, in steps of 255.
    """

    name: str
    content: bytes | Callable[[Path], None]
    finds: tuple[str, ...] = ()
    opens: str | np.ndarray = ""
    tolerance: float = 0.0

    def write(self, folder: Path) -> Path:
        path = folder / os.fsdecode(self.name) if isinstance(self.name, bytes) else (
            folder / self.name
        )  # fmt: skip
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)
        return path

    @property
    def readable(self) -> bool:
        return not isinstance(self.opens, str)


# ---- pieces of files ---------------------------------------------------------------------------


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, bits: int = 8, colours: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 0x08
    return bytes(changed)


def exif(orientation: int, filling: int = 0) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    if filling:
        block[0x010E] = "x" * filling  # ImageDescription
    return block.tobytes()


def stored_as(orientation: int) -> np.ndarray:
    """The pixels that a camera stores so that turned by EXIF they are the scene (TIFF 6.0)."""
    first_row_and_column = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }
    return np.ascontiguousarray(first_row_and_column[orientation](SCENE))


def frames(form: str, **options) -> bytes:
    pictures = [Image.fromarray(SCENE), *(Image.new("RGB", (WIDTH, HEIGHT), c) for c in ("red", 9))]
    return encoded(pictures[0], form, save_all=True, append_images=pictures[1:], **options)


def progressive(scans: int) -> bytes:
    """A progressive JPEG up to the end of so many scans."""
    content = encoded(SCENE, "JPEG", quality=95, progressive=True)
    at = [i for i in range(len(content) - 1) if content[i : i + 2] == b"\xff\xda"]
    return content[: at[scans]]


def with_segment(marker: int, body: bytes) -> bytes:
    """The scene as JPEG, with one more segment behind the start."""
    return JPEG[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + JPEG[2:]


def palette_with_alpha() -> tuple[bytes, np.ndarray]:
    picture = Image.new("P", (WIDTH, HEIGHT))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata([(x // 32) % 3 for _ in range(HEIGHT) for x in range(WIDTH)])
    expected = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    expected[:, :32], expected[:, 32:64], expected[:, 64:] = (255, 0, 0), 255, (127, 127, 255)
    return encoded(picture, "PNG", transparency=bytes([255, 0, 128])), expected


def rgba() -> tuple[bytes, np.ndarray]:
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, WIDTH // 2 :] = 51
    expected = SCENE * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    return encoded(np.dstack([SCENE, alpha]), "PNG"), expected


def cmyk() -> tuple[bytes, np.ndarray]:
    values = np.stack([SCENE[..., 0] // 2, SCENE[..., 1] // 2, SCENE[..., 2] // 3, GREY // 4], -1)
    values = values.astype(np.uint8)
    ink = 1 - values.astype(np.float64) / 255
    picture = Image.merge("CMYK", [Image.fromarray(values[..., i]) for i in range(4)])
    return encoded(picture, "JPEG", quality=98, subsampling=0), 255 * ink[..., :3] * ink[..., 3:]


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, 2)


def no_permission(path: Path) -> None:
    path.write_bytes(JPEG)
    path.chmod(0)


# ---- the set -----------------------------------------------------------------------------------

FTYP_HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(200)
BOMB = png_header(100_000, 100_000) + png_chunk(b"IDAT", zlib.compress(bytes(99)))
DEEP = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
BITS = (SCENE[..., 0] > 100).astype(np.uint8) * 255
LINE = np.stack([np.arange(20_000) % 256] * 3, -1).astype(np.uint8)[:, None]
PALETTE, PALETTE_SEEN = palette_with_alpha()
ALPHA, ALPHA_SEEN = rgba()
CMYK, CMYK_SEEN = cmyk()
JPEG_STEPS = 3.0  # what compression may change, in the mean
NOT_FINITE = np.full((HEIGHT, WIDTH), np.nan, np.float32)
TEXT_BOMB = png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(2**21)))

CASES = [
    Case("good.jpg", JPEG, (), SCENE, JPEG_STEPS),
    Case("good.png", PNG, (), SCENE),
    # cut, flipped, empty
    Case("empty.jpg", b"", ("empty_file",), r"it is empty \(0 bytes\)"),
    Case("one-byte.jpg", b"\xff", ("unreadable",), "not an image"),
    Case("zeros.jpg", bytes(5000), ("unreadable",), "not an image"),
    Case("signature-only.png", PNG[:8], ("unreadable",), "not an image|damaged"),
    Case("cut.jpg", JPEG[: len(JPEG) // 2], ("truncated",), "truncated"),
    Case("cut.png", PNG[: len(PNG) // 2], ("truncated",), "truncated"),
    Case("cut.webp", encoded(SCENE, "WEBP")[:-200], ("unreadable",), "damaged|not an image"),
    Case("cut.gif", frames("GIF")[:900], ("truncated",), "truncated"),
    Case("cut.bmp", encoded(SCENE, "BMP")[:5000], ("truncated",), "truncated"),
    Case("cut.tif", encoded(SCENE, "TIFF")[:5000], ("truncated",), "not enough image data|trunc"),
    Case("cut-after-first-scan.jpg", progressive(1), ("truncated",), "truncated"),
    Case("first-scan-only.jpg", progressive(1) + b"\xff\xd9", ("incomplete",), SCENE, 25.0),
    Case("flipped-header.jpg", flipped(JPEG, JPEG.index(b"\xff\xc0") + 4), ("unreadable",),
         "not an image|damaged"),
    Case("flipped-header.png", flipped(PNG, 18), ("unreadable",), "not an image|damaged"),
    Case("flipped-data.png", flipped(PNG, len(PNG) // 2), ("unreadable",), "damaged"),
    # JPEG has no checksum: most flipped bits in its data can be seen, but not be told
    Case("flipped-data.jpg", flipped(JPEG, len(JPEG) - 300), (), SCENE, 60.0),
    # too large, too small, too narrow, nothing on it
    Case("bomb.png", BOMB, ("bomb",), "too large to decode safely"),
    Case("text-bomb.png", PNG[:33] + TEXT_BOMB + PNG[33:], ("unreadable",), "damaged|not an image"),
    Case("1x1.png", encoded(SCENE[:1, :1], "PNG"), ("tiny",), SCENE[:1, :1]),
    Case("1x20000.png", encoded(LINE, "PNG"), ("tiny", "narrow"), LINE),
    Case("blank.png", encoded(np.full_like(SCENE, 77), "PNG"), ("blank",), np.full_like(SCENE, 77)),
    # modes
    Case("cmyk.jpg", CMYK, ("odd_mode",), CMYK_SEEN, JPEG_STEPS),
    Case("16-bit.png", encoded(DEEP, "PNG"), ("odd_mode",), grey(np.round(DEEP / 257)), 0.01),
    Case("16-bit.tif", encoded(DEEP, "TIFF"), ("odd_mode",), grey(np.round(DEEP / 257)), 0.01),
    Case("1-bit.png", encoded(Image.fromarray(BITS).convert("1"), "PNG"), ("odd_mode",),
         grey(BITS)),
    Case("float.tif", encoded((GREY / 255).astype(np.float32), "TIFF"), ("odd_mode",),
         grey(GREY), 0.51),
    Case("not-finite.tif", encoded(NOT_FINITE, "TIFF"), ("odd_mode", "unreadable"), "not finite"),
    Case("palette-alpha.png", PALETTE, ("transparent",), PALETTE_SEEN, 0.5),
    Case("rgba.png", ALPHA, ("transparent",), ALPHA_SEEN, 0.51),
    Case("opaque-rgba.png", encoded(np.dstack([SCENE, np.full_like(BITS, 255)]), "PNG"), (), SCENE),
    Case("grey.jpg", encoded(GREY.astype(np.uint8), "JPEG", quality=98), (),
         grey(GREY.astype(np.uint8)), JPEG_STEPS),
    # several pictures in one file
    Case("animated.gif", frames("GIF"), ("animated",), SCENE, 12.0),  # 256 colours
    Case("animated.webp", frames("WEBP", lossless=True), ("animated",), SCENE),
    Case("animated.png", frames("PNG"), ("animated",), SCENE),
    Case("pages.tif", frames("TIFF"), ("animated",), SCENE),
    # turned
    *(
        Case(f"turned-{o}.jpg",
             encoded(stored_as(o), "JPEG", exif=exif(o), quality=95, subsampling=0),
             ("rotated",) if o > 1 else (), SCENE, JPEG_STEPS)
        for o in range(1, 9)
    ),
    # metadata
    Case("huge-exif.jpg", encoded(SCENE, "JPEG", exif=exif(1, 60_000), quality=95), (), SCENE,
         JPEG_STEPS),
    Case("broken-exif.jpg", with_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
         ("broken_metadata",), SCENE, JPEG_STEPS),
    Case("icc-garbage.jpg", with_segment(0xE2, b"ICC_PROFILE\0\x01\x01" + b"garbage" * 40),
         ("broken_metadata",), SCENE, JPEG_STEPS),
    Case("trailing-garbage.jpg", JPEG + b"garbage" * 99, (), SCENE, JPEG_STEPS),
    # names, and things that are no pictures
    Case("png-inside.jpg", PNG, ("wrong_extension",), SCENE),
    Case("jpeg-inside.gif", JPEG, ("wrong_extension",), SCENE, JPEG_STEPS),
    Case("text.jpg", b"A dog sits on a mat.\n", ("unreadable",), "not an image"),
    Case("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", ("unreadable",),
         "not an image"),
    Case("error.jpg", b'{"error": "rate limit"}', ("unreadable",), "not an image"),
    Case("drawing.jpg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
         ("unreadable",), "not an image"),
    Case("photo-of-a-phone.jpg", FTYP_HEIC, ("unreadable",), "not an image|damaged"),
    Case("pointer.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
         ("unreadable",), "not an image"),
    Case("paper.jpg", b"%PDF-1.7\n%\xe2\xe3\n", ("unreadable",), "not an image"),
    Case("archive.jpg", b"PK\x03\x04" + bytes(60), ("unreadable",), "not an image"),
    Case("film.jpg", struct.pack(">I", 24) + b"ftypisom" + bytes(99), ("unreadable",),
         "not an image"),
    Case(b"caf\xe9.png", PNG, ("bad_name",), SCENE),
    Case("circle.jpg", lambda path: path.symlink_to(path.name), ("missing",), "no such file"),
    Case("dangling.jpg", lambda path: path.symlink_to("gone.jpg"), ("missing",), "no such file"),
    Case("folder.jpg", lambda path: path.mkdir(), ("not_a_file",), "it is a folder"),
    Case("pipe.jpg", lambda path: os.mkfifo(path), ("not_a_file",), "not a regular file"),
    Case("locked.jpg", no_permission, ("no_permission",), "Permission denied"),
]  # fmt: skip
