"""Decoding JPEGs at a part of their size: what it may change, and what it must not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from captionkit.data.preprocess import Preprocessor
from captionkit.errors import ImageError

EXIF_ORIENTATION = 0x0112


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blurred noise: like a photo, most of it lies in low frequencies."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 20 + 2, width // 20 + 2, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), 3)
    return image.filter(ImageFilter.GaussianBlur(2))


def jpeg(image: Image.Image, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **settings)
    return buffer.getvalue()


def clip(size: int) -> Preprocessor:
    return Preprocessor(
        "CLIPImageProcessor", size, (size, size), 3, 1 / 255, (0.5,) * 3, (0.5,) * 3
    )


@pytest.mark.parametrize("preprocess", [Preprocessor.square(48), clip(48)])
@pytest.mark.parametrize("size", [(800, 600), (601, 799), (97, 96), (193, 300), (1000, 200)])
def test_large_photos_differ_a_little(preprocess, size, tmp_path):
    content = jpeg(smooth(*size))
    (tmp_path / "a.jpg").write_bytes(content)
    exact = preprocess.read(content)
    for source in (content, bytearray(content), tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        fast = preprocess.read(source, fast_jpeg=True)
        assert fast.shape == exact.shape
        assert np.abs(fast.astype(int) - exact).mean() < 2
    assert (fast != exact).any()


def test_it_is_decoded_no_smaller_than_it_is_needed():
    """Below twice the size in one direction there is nothing to gain, and no pixel changes."""
    preprocess = Preprocessor.square(48)
    for size in ((95, 400), (400, 95), (48, 48), (20, 30)):
        content = jpeg(smooth(*size))
        np.testing.assert_array_equal(
            preprocess.read(content, fast_jpeg=True), preprocess.read(content)
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_on_its_side_is_turned_first(orientation):
    preprocess = Preprocessor("ViTImageProcessor", (40, 90), None, 3, 1.0, (0,) * 3, (1,) * 3)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    content = jpeg(smooth(401, 299), exif=exif)
    exact, fast = preprocess.read(content), preprocess.read(content, fast_jpeg=True)
    assert np.abs(fast.astype(int) - exact).mean() < 2
    assert (fast != exact).any()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_kinds_of_jpeg(mode):
    preprocess = Preprocessor.square(48)
    content = jpeg(smooth(400, 300).convert(mode))
    exact, fast = preprocess.read(content), preprocess.read(content, fast_jpeg=True)
    assert np.abs(fast.astype(int) - exact).mean() < 2


def test_what_is_no_jpeg_is_not_changed():
    preprocess = Preprocessor.square(48)
    buffer = io.BytesIO()
    smooth(400, 300).save(buffer, "PNG")
    for source in (buffer.getvalue(), smooth(400, 300), np.asarray(smooth(400, 300))):
        np.testing.assert_array_equal(
            preprocess.read(source, fast_jpeg=True), preprocess.read(source)
        )


@pytest.mark.parametrize("source", [b"", b"\xff\xd8\xff cut", "nowhere.jpg", 3, "http://a/b.jpg"])
def test_what_cannot_be_read_is_the_same_error(source):
    with pytest.raises(ImageError) as exact:
        Preprocessor.square(48).read(source)
    with pytest.raises(ImageError) as fast:
        Preprocessor.square(48).read(source, fast_jpeg=True)
    assert str(fast.value) == str(exact.value)


def test_a_cut_off_jpeg_is_an_error_too():
    content = jpeg(smooth(400, 300))
    for end in (len(content) // 2, len(content) - 200):
        for fast_jpeg in (False, True):
            with pytest.raises(ImageError, match="truncated"):
                Preprocessor.square(48).read(content[:end], fast_jpeg=fast_jpeg)


@pytest.mark.acceptance
def test_the_difference_on_photos_is_as_documented(shared_data):
    """docs/data-pipeline.md: at 224 pixels, over the photos that it changes."""
    preprocess, changed = Preprocessor.square(224), []
    for photo in sorted((shared_data / "coco-mini" / "val2017").glob("*.jpg")):
        exact, fast = preprocess.read(photo), preprocess.read(photo, fast_jpeg=True)
        if (exact != fast).any():
            changed.append(np.abs(exact.astype(int) - fast))
    assert 1 < np.mean(changed) < 4
