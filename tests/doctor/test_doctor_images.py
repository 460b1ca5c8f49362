"""Every file of the broken set: what is found, and what opening it gives."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from broken_images import CASES, HEIGHT, SCENE, WIDTH, encoded
from PIL import Image

from captionkit.data.images import open_image
from captionkit.doctor.images import Limits, check_image, difference_hash
from captionkit.doctor.signatures import guess
from captionkit.errors import ImageError

IDS = [os.fsdecode(case.name) for case in CASES]


@pytest.fixture(scope="module")
def paths(broken):
    return {case.name: os.path.join(broken, os.fsdecode(case.name)) for case in CASES}


@pytest.fixture(autouse=True)
def _pillow_may_warn():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of EXIF and TIFF tags that are damaged
        yield


def test_the_set_is_large_enough_and_its_names_differ():
    assert len(CASES) >= 30
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_each_file_gives_its_findings_and_no_other(case, paths):
    if case.name == "locked.jpg" and os.geteuid() == 0:
        pytest.skip("root may read every file")
    facts = check_image(paths[case.name], Limits())
    # the name is not looked at here, but where the folder is read
    assert [kind for kind, _ in facts.problems] == [k for k in case.finds if k != "bad_name"]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_each_file_opens_as_the_right_picture_or_is_refused_with_its_reason(case, paths):
    if case.name == "locked.jpg" and os.geteuid() == 0:
        pytest.skip("root may read every file")
    path = paths[case.name]
    if not case.readable:
        with pytest.raises(ImageError, match=case.opens) as error:
            open_image(path)
        assert path in str(error.value)
        assert "\n" not in str(error.value)
        return
    picture = open_image(path)
    assert picture.mode == "RGB"
    found = np.asarray(picture).astype(np.float64)
    assert found.shape == case.opens.shape
    assert np.abs(found - case.opens).mean() <= case.tolerance


def test_a_file_that_may_not_be_read(paths, monkeypatch):
    """As for who is not root: the system call is what refuses."""
    import builtins

    real = builtins.open

    def refuse(name, *rest, **named):
        if name == paths["good.jpg"]:
            raise PermissionError(13, "Permission denied", name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "open", refuse)
    assert check_image(paths["good.jpg"], Limits()).problems == [
        ("no_permission", "Permission denied")
    ]


def test_a_pipe_is_not_waited_for(paths):
    # opening it to read would hang for ever
    assert check_image(paths["pipe.jpg"], Limits()).file_hash is None


def test_details_say_what_a_file_is_instead(paths):
    wanted = {
        "page.jpg": "an HTML page", "error.jpg": "JSON", "drawing.jpg": "an SVG drawing",
        "photo-of-a-phone.jpg": "a HEIC photo", "pointer.jpg": "git lfs pull",
        "paper.jpg": "a PDF", "archive.jpg": "a zip archive", "film.jpg": "a film",
        "text.jpg": "text", "zeros.jpg": "nothing but zeros", "circle.jpg": "leads in a circle",
        "dangling.jpg": "gone.jpg", "folder.jpg": "a folder", "pipe.jpg": "a pipe",
        "16-bit.png": "I;16", "cmyk.jpg": "CMYK", "1-bit.png": "1", "animated.gif": "3 frames",
        "turned-6.jpg": "orientation 6", "png-inside.jpg": "the content is PNG",
        "flipped-header.jpg": "a JPEG whose header is damaged", "bomb.png": "10,000,000,000 pixels",
    }  # fmt: skip
    for name, words in wanted.items():
        details = " ".join(d for _, d in check_image(paths[name], Limits()).problems)
        assert words in details, name


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"", ""), (b"\x00\x01\x02\x03", ""), (b"\xff\xff\xff", ""), (b"\xffab", ""),
        ("Ein Bär".encode(), "text"), ("Ein Bär".encode("latin-1"), ""),
        (b"\xef\xbb\xbf<html>", "an HTML page, perhaps a server's error message"),
        (b'<?xml version="1.0"?><svg', "an SVG drawing, which Pillow cannot read"),
        (b'<?xml version="1.0"?><Error>', "XML, perhaps a server's error message"),
        (b"\xe4\xbd\xa0" * 70, "text"), ((b"\xe4\xbd\xa0" * 90)[:256], "text"),
    ],
)  # fmt: skip
def test_guessing_from_the_first_bytes(start, what):
    assert guess(start) == what


def test_limits_decide_what_is_tiny_and_huge(paths):
    good = paths["good.png"]
    assert check_image(good, Limits(min_side=HEIGHT)).problems == []
    size = f"{WIDTH} x {HEIGHT} pixels"
    assert check_image(good, Limits(min_side=HEIGHT + 1)).problems == [("tiny", size)]
    assert check_image(good, Limits(max_pixels=WIDTH * HEIGHT)).problems == []
    assert check_image(good, Limits(max_pixels=WIDTH * HEIGHT - 1)).problems == [("huge", size)]


def test_images_in_memory_are_looked_at_like_files(paths):
    for case in CASES:
        if not isinstance(case.content, bytes) or "wrong_extension" in case.finds:
            continue
        content = case.content
        found = check_image(lambda content=content: content, Limits())
        wanted = [kind for kind in case.finds if kind != "bad_name"]
        assert [kind for kind, _ in found.problems] == wanted, case.name
        assert found.file_hash == check_image(paths[case.name], Limits()).file_hash
    for given in (Image.fromarray(SCENE), SCENE):
        facts = check_image(lambda given=given: given, Limits())
        assert facts.problems == []
        assert facts.pixel_hash == check_image(paths["good.png"], Limits()).pixel_hash


def test_equal_pixels_have_equal_hashes_whatever_the_file(paths):
    same = ["good.png", "animated.png", "animated.webp", "pages.tif", "opaque-rgba.png"]
    hashes = {check_image(paths[name], Limits()).pixel_hash for name in same}
    assert len(hashes) == 1
    other = encoded(SCENE[::-1], "PNG")
    assert check_image(lambda: other, Limits()).pixel_hash not in hashes
    # the same bytes in another shape are another picture
    a, b = (encoded(np.zeros(shape, np.uint8), "PNG") for shape in ((64, 96, 3), (96, 64, 3)))
    assert (
        check_image(lambda: a, Limits()).pixel_hash != check_image(lambda: b, Limits()).pixel_hash
    )


def test_the_difference_hash_against_loops():
    rng = np.random.default_rng(3)
    for _ in range(20):
        fields = rng.integers(0, 256, (8, 9), dtype=np.uint8)
        # 9 x 8 fields of 7 x 5 equal pixels: their means are exact
        picture = Image.fromarray(np.kron(fields, np.ones((5, 7), np.uint8))).convert("RGB")
        bits = "".join(
            "1" if fields[row, column + 1] > fields[row, column] else "0"
            for row in range(8)
            for column in range(8)
        )
        assert difference_hash(picture) == int(bits, 2)


def test_progressive_scans_are_counted_as_the_encoder_wrote_them():
    from captionkit.doctor.jpeg import missing_scans

    for mode in ("RGB", "L"):
        picture = Image.fromarray(SCENE).convert(mode)
        whole = encoded(picture, "JPEG", progressive=True, quality=90)
        starts = [i for i in range(len(whole) - 1) if whole[i : i + 2] == b"\xff\xda"]
        assert len(starts) > 3
        assert not missing_scans(whole)
        for start in starts[1:]:
            assert missing_scans(whole[:start] + b"\xff\xd9")
        assert not missing_scans(encoded(picture, "JPEG"))
    for strange in (b"", b"\xff", b"\xff\xd8\xff", b"\xff\xd8\xff\xda\0\x03\xff", bytes(99)):
        assert not missing_scans(strange)
