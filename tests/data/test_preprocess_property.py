"""Any image under any settings: the pixels of the Hugging Face processor, to the last bit."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captionkit.data.preprocess import Preprocessor

LENGTH = st.integers(1, 70)
EDGES = st.builds(lambda h, w: {"height": h, "width": w}, LENGTH, LENGTH)
SHORTEST = st.builds(lambda edge: {"shortest_edge": edge}, LENGTH)


@st.composite
def processors(draw: Any) -> Any:
    kind = draw(st.sampled_from(["CLIP", "ViT", "DeiT", "Blip", "Siglip", "Bit"]))
    given: dict[str, Any] = {"resample": draw(st.sampled_from([0, 1, 2, 3, 4, 5]))}
    if kind in ("CLIP", "DeiT", "Bit"):
        given["crop_size"] = draw(EDGES)
        given["do_resize"] = draw(st.booleans())
        given["size"] = draw(EDGES if kind == "DeiT" else st.one_of(EDGES, SHORTEST))
    else:
        given["size"] = draw(EDGES)
    name = f"{kind}ImageProcessor"
    made = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return made(**given)


@st.composite
def pictures(draw: Any) -> Image.Image:
    # long and thin ones too, but none that would become larger than the memory
    longest = draw(st.sampled_from([8, 90, 400]))
    width, height = (draw(st.integers(1 if longest < 400 else 20, longest)) for _ in range(2))
    mode = draw(st.sampled_from(["RGB", "RGB", "L"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).convert("RGB")


@settings(max_examples=150, deadline=None)
@given(theirs=processors(), image=pictures())
def test_no_pixel_differs(theirs, image):
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = Preprocessor.from_checkpoint(folder)
    options = {"return_tensors": "np", "input_data_format": "channels_last"}
    raw = theirs(image, do_rescale=False, do_normalize=False, **options)["pixel_values"][0]
    pixels = ours(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.transpose(2, 0, 1), raw)
    whole = theirs(image, **options)["pixel_values"][0]
    np.testing.assert_array_equal(ours.pixel_values(pixels), whole)
