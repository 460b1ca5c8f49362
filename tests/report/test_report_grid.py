"""The picture of sample images and captions."""

from __future__ import annotations

import numpy
import pytest
from PIL import Image, ImageFont

from captionkit.errors import ConfigError, OutputError
from captionkit.report import write_grid
from captionkit.report.grid import _wrap

COLOURS = [(230, 30, 30), (30, 200, 30), (30, 30, 230), (200, 200, 30), (30, 200, 200)]


@pytest.mark.parametrize("count", [1, 4, 7, 16])
def test_every_image_is_drawn_once_and_whole(tmp_path, count):
    images = [Image.new("RGB", (120, 90), (i * 15, 255 - i * 15, 128)) for i in range(count)]
    path = write_grid(tmp_path / "grid.png", images, ["a caption"] * count)
    with Image.open(path) as picture:
        pixels = numpy.asarray(picture.convert("RGB"))
    for image in images:
        area = (pixels == image.getpixel((0, 0))).all(-1).sum()
        # 3.1 inches at 150 dots, four thirds as wide as high
        assert area == pytest.approx(465 * 465 * 3 / 4, rel=0.03)


def test_texts_are_drawn_under_their_image_and_grow_the_picture(tmp_path):
    image = Image.new("RGB", (64, 64), COLOURS[0])
    sizes = []
    for more in ({}, {"before": ["the"]}, {"before": ["the"], "references": ["a dog"]}):
        with Image.open(write_grid(tmp_path / "g.png", [image], ["a red dog"], **more)) as picture:
            sizes.append(picture.height)
    assert sizes == sorted(set(sizes))


def test_odd_texts_and_pictures_are_no_error(tmp_path):
    images = [
        Image.new("RGBA", (5, 900), (1, 2, 3, 4)), Image.new("L", (1, 1)), Image.new("P", (9, 9)),
    ]  # fmt: skip
    captions = ["costs $5 or $x^2$ \\alpha {", "🐱 猫 " * 80, ""]
    assert write_grid(tmp_path / "grid.png", images, captions, before=captions).is_file()
    assert list(tmp_path.iterdir()) == [tmp_path / "grid.png"]


@pytest.mark.parametrize("text", ["a wide window with many words " * 3, "W" * 200, "short"])
def test_lines_fit_the_image_as_they_are_drawn(text):
    from matplotlib.font_manager import FontProperties, findfont

    font = ImageFont.truetype(findfont(FontProperties(weight="bold")), size=95)
    for line in _wrap(text, "bold"):
        assert font.getlength(line) / 10 <= 3.1 * 72 + 1  # points


def test_lists_that_do_not_match_are_refused(tmp_path):
    image = Image.new("RGB", (4, 4))
    with pytest.raises(ConfigError, match="2 images, but 1 captions"):
        write_grid(tmp_path / "g.png", [image] * 2, ["a"])
    with pytest.raises(ConfigError, match="at least one image"):
        write_grid(tmp_path / "g.png", [], [])


def test_an_unwritable_place_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        write_grid(tmp_path / "file" / "g.png", [Image.new("RGB", (4, 4))], ["a"])
