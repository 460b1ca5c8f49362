"""What may be given as images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from captionkit.errors import ImageError
from captionkit.inputs import as_list, to_encode

PICTURE = Image.new("RGB", (4, 4))


@pytest.mark.parametrize(
    "one", ["a.jpg", b"\x89PNG", PICTURE, np.zeros((4, 4, 3)), np.zeros((4, 4))]
)
def test_one_image_is_a_list_of_one(one):
    assert len(as_list(one)) == len(to_encode(one)) == 1


def test_many_images_stay_in_order():
    assert as_list(iter(["b.jpg", "a.jpg"])) == to_encode(("b.jpg", "a.jpg")) == ["b.jpg", "a.jpg"]
    assert len(as_list(np.zeros((3, 4, 4, 3)))) == 3


def test_what_is_no_image():
    with pytest.raises(ImageError, match="Cannot caption 'int': give a path"):
        as_list(3)
    with pytest.raises(ImageError, match="one image or more, found none"):
        to_encode([])
    assert as_list([]) == []
