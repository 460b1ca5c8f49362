import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from captionkit.data import images
from captionkit.data.images import encode_png, open_image
from captionkit.errors import ImageError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def array(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


# ---- sources


def test_one_picture_from_every_source(tmp_path):
    picture = Image.fromarray(PIXELS)
    (tmp_path / "a.png").write_bytes(encoded(picture, "PNG"))
    for source in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        encoded(picture, "PNG"),
        bytearray(encoded(picture, "PNG")),
        picture,
        PIXELS,
        PIXELS.astype(np.float64) / 255,
        PIXELS[::-1][::-1],
    ):
        np.testing.assert_array_equal(array(open_image(source)), PIXELS)
    np.testing.assert_array_equal(array(open_image(encode_png(picture))), PIXELS)


def test_the_given_image_is_left_as_it_is():
    picture = Image.fromarray(PIXELS).convert("RGBA")
    before = picture.tobytes()
    open_image(picture)
    assert (picture.mode, picture.tobytes()) == ("RGBA", before)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_formats(form):
    content = encoded(Image.fromarray(PIXELS), form)
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    np.testing.assert_array_equal(array(open_image(content)), np.asarray(expected))


# ---- arrays


def test_arrays():
    grey = PIXELS[..., 0]
    wide = grey.astype(np.uint16) * 257
    for source in (grey, grey[..., None], wide, wide[..., None], grey.astype(np.float32) / 255):
        np.testing.assert_array_equal(array(open_image(source)), np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(array(open_image(grey > 99))[..., 0], np.where(grey > 99, 255, 0))
    alpha = np.full((6, 9, 1), 255, np.uint8)
    np.testing.assert_array_equal(array(open_image(np.concatenate([PIXELS, alpha], 2))), PIXELS)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, 4, 5), np.uint8), "expected the shape"),
        (np.zeros((3, 8, 8), np.uint8), "expected the shape"),
        (np.zeros((2, 3, 4, 3), np.uint8), "expected the shape"),
        (np.zeros((0, 4, 3), np.uint8), "expected the shape"),
        (np.zeros((4, 4), np.int64), "expected uint8"),
        (np.full((4, 4), 200.0), r"floats should be in \[0, 1\]"),
        (np.full((4, 4), -0.1), r"floats should be in \[0, 1\]"),
        (np.full((4, 4), np.nan), r"floats should be in \[0, 1\]"),
        (None, "found NoneType"),
        (3, "found int"),
    ],
)
def test_arrays_that_are_no_images(bad, message):
    with pytest.raises(ImageError, match=message):
        open_image(bad)


# ---- modes


def test_transparency_is_composited_on_white():
    rgba = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    picture = Image.fromarray(rgba)
    for source in (rgba, picture, encoded(picture, "PNG"), encoded(picture, "TIFF")):
        np.testing.assert_allclose(array(open_image(source)), expected, atol=1.01)

    grey = Image.merge("LA", [Image.fromarray(rgba[..., 0]), Image.fromarray(rgba[..., 3])])
    expected = rgba[..., :1] * alpha + 255 * (1 - alpha)
    for source in (grey, encoded(grey, "PNG")):
        np.testing.assert_allclose(array(open_image(source)), np.repeat(expected, 3, 2), atol=1.01)


def test_a_palette_with_transparency():
    picture = Image.new("P", (4, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
    picture.putdata([0, 1, 2, 3])
    solid = [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]]
    np.testing.assert_array_equal(array(open_image(encoded(picture, "PNG"))), solid)

    one_index = encoded(picture, "PNG", transparency=2)
    solid[0][2] = [255, 255, 255]
    np.testing.assert_array_equal(array(open_image(one_index)), solid)
    np.testing.assert_array_equal(array(open_image(encoded(picture, "GIF", transparency=2))), solid)

    by_alpha = encoded(picture, "PNG", transparency=bytes([255, 0, 128, 255]))
    expected = [[[255, 0, 0], [255, 255, 255], [127, 127, 255], [10, 20, 30]]]
    np.testing.assert_allclose(array(open_image(by_alpha)), expected, atol=1.01)


def test_a_transparent_colour_in_rgb_and_grey():
    picture = Image.new("RGB", (2, 1), (9, 9, 9))
    picture.putpixel((1, 0), (1, 2, 3))
    content = encoded(picture, "PNG", transparency=(1, 2, 3))
    np.testing.assert_array_equal(array(open_image(content)), [[[9] * 3, [255] * 3]])
    content = encoded(picture.convert("L"), "PNG", transparency=9)
    assert array(open_image(content))[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bits_are_scaled_and_not_clipped():
    wide = np.array([[0, 257, 300, 32768, 65535]], np.uint16)
    expected = np.repeat(np.round(wide / 257)[..., None], 3, 2)
    picture = Image.fromarray(wide)
    assert picture.mode == "I;16"
    for source in (
        wide,
        picture,
        picture.convert("I"),
        encoded(picture, "PNG"),
        encoded(picture, "TIFF"),
        encoded(picture.convert("I"), "TIFF"),
    ):
        np.testing.assert_array_equal(array(open_image(source)), expected)


def test_sixteen_bit_colour():
    # 16-bit RGB PNG, written by hand: Pillow reads it with the high bytes
    pixels = np.array([[[0, 300, 65535], [256, 32768, 12345]]], ">u2")
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"IDAT", zlib.compress(b"\0" + pixels.tobytes())) + chunk(b"IEND", b"")
    np.testing.assert_allclose(array(open_image(content)), pixels / 257, atol=1.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 500.0, 1000.0], [0, 128, 255]),
    ],
)
def test_float_images(values, expected):
    picture = Image.fromarray(np.array([values], np.float32))
    assert picture.mode == "F"
    for source in (picture, encoded(picture, "TIFF")):
        np.testing.assert_allclose(array(open_image(source))[0, :, 0], expected, atol=0.51)
    with pytest.raises(ImageError, match="not finite"):
        open_image(Image.fromarray(np.array([[np.nan, 1]], np.float32)))


def test_thirty_two_bit_integers_keep_their_range():
    picture = Image.fromarray(np.array([[-1000, 0, 1000]], np.int32))
    assert picture.mode == "I"
    np.testing.assert_allclose(array(open_image(picture))[0, :, 0], [0, 127.5, 255], atol=0.51)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_other_modes_are_as_pillow_converts_them(mode):
    picture = Image.fromarray(PIXELS).convert(mode)
    np.testing.assert_array_equal(array(open_image(picture)), np.asarray(picture.convert("RGB")))


def test_cmyk_and_one_bit_files():
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert array(open_image(encoded(white, "JPEG"))).min() == 255
    bits = Image.new("1", (8, 8), 1)
    assert array(open_image(encoded(bits, "PNG"))).min() == 255
    assert array(open_image(encoded(bits, "TIFF"))).min() == 255


# ---- orientation and frames


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation, form):
    picture = Image.new("RGB", (16, 8), "white")
    ImageDraw.Draw(picture).rectangle((0, 0, 7, 3), fill="red")
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture, form, exif=exif)
    reference = Image.open(io.BytesIO(content))
    reference.load()
    reference = ImageOps.exif_transpose(reference).convert("RGB")
    upright = open_image(content)
    assert upright.size == ((8, 16) if orientation > 4 else (16, 8))
    np.testing.assert_array_equal(array(upright), np.asarray(reference))
    # the same of a PIL image that is opened already
    np.testing.assert_array_equal(
        array(open_image(Image.open(io.BytesIO(content)))), np.asarray(reference)
    )


@pytest.mark.parametrize("block", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_a_broken_exif_block_does_not_spoil_the_picture(block):
    content = encoded(Image.fromarray(PIXELS), "PNG", exif=block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow may warn of it
        np.testing.assert_array_equal(array(open_image(content)), PIXELS)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert array(open_image(content))[4, 4].tolist() == [255, 0, 0]


# ---- files that are no images


def test_bad_files(tmp_path):
    content = encoded(Image.effect_noise((64, 64), 50), "JPEG")
    files = {
        "empty.jpg": (b"", r"is empty \(0 bytes\)"),
        "one.jpg": (b"\xff", "not an image"),
        "text.jpg": (b"these are words", "not an image"),
        "page.jpg": (b"<html><body>404</body></html>", "not an image"),
        "cut.jpg": (content[: len(content) // 2], "truncated"),
        "cut.png": (encoded(Image.effect_noise((64, 64), 50), "PNG")[:900], "truncated"),
        "head.png": (b"\x89PNG\r\n\x1a\n", "not an image|damaged"),
    }
    for name, (data, message) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=message) as error:
            open_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)
        with pytest.raises(ImageError, match=message):
            open_image(data)
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match=r"folder\.jpg: it is a folder"):
        open_image(tmp_path / "folder.jpg")
    with pytest.raises(ImageError, match=r"none\.jpg: there is no such file"):
        open_image(str(tmp_path / "none.jpg"))
    with pytest.raises(ImageError):
        open_image("a\0b.jpg")


def test_every_cut_and_every_flipped_byte_is_an_image_or_an_image_error():
    content = bytearray(encoded(Image.fromarray(PIXELS), "PNG"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(len(content)):
            flipped = content.copy()
            flipped[i] ^= 0xFF
            for data in (bytes(content[:i]), bytes(flipped)):
                with contextlib.suppress(ImageError):
                    assert open_image(data).mode == "RGB"


def test_a_decompression_bomb():
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    body = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
    content += struct.pack(">I", zlib.crc32(body)) + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4
    with pytest.raises(ImageError, match="too large to decode safely"):
        open_image(content)


# ---- URLs and archives


def test_urls_are_not_opened_unless_allowed(monkeypatch):
    monkeypatch.setattr(images, "fetch", lambda url: encoded(Image.fromarray(PIXELS), "PNG"))
    url = "https://example.org/a.png"
    np.testing.assert_array_equal(array(open_image(url, allow_urls=True)), PIXELS)
    with pytest.raises(ImageError, match=r"Cannot read https://example\.org/a\.png.*not fetched"):
        open_image(url)


class InAnArchive:
    def __init__(self, content):
        self.content = content

    def __str__(self):
        return "a.png in b.zip"

    def read_bytes(self):
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


def test_whatever_has_bytes():
    content = encoded(Image.fromarray(PIXELS), "PNG")
    np.testing.assert_array_equal(array(open_image(InAnArchive(content))), PIXELS)
    for bad, message in (
        (b"", "0 bytes"),
        (b"words", "not an image"),
        (FileNotFoundError(2, "No such file"), "No such file"),
        (ImageError("the archive is damaged"), "the archive is damaged"),
    ):
        with pytest.raises(ImageError, match=rf"Cannot read a\.png in b\.zip: .*{message}"):
            open_image(InAnArchive(bad))
