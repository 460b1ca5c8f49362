"""Small pictures as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from PIL import Image, features

from captionkit.errors import CaptionkitError
from captionkit.report.run import Prediction

Pictures: TypeAlias = Callable[[int], Image.Image | None]

# (at most so many images, longest side in pixels, quality): a page of 2,000 stays loadable
_SIZES = ((120, 288, 72), (600, 192, 66), (None, 176, 55))
_EARLIER = re.compile(
    r'<li class="card" data-id="([^"]*)"[^>]*>\s*<div class="picture">\s*'
    r'<img src="(data:image/(?:webp|jpeg);base64,[A-Za-z0-9+/=]+)"'
)


def thumbnails(images: Pictures | None, predictions: Sequence[Prediction]) -> dict[int, str]:
    """Data URIs by row of predictions.jsonl; a picture that cannot be had is left out."""
    if images is None:
        return {}
    side, quality = next(
        (s, q) for most, s, q in _SIZES if most is None or len(predictions) <= most
    )
    uris = {}
    for prediction in predictions:
        try:
            image = images(prediction.index)
            if image is not None:
                uris[prediction.index] = data_uri(image, side, quality)
        except (CaptionkitError, OSError, ValueError, SyntaxError):
            continue  # Pillow raises any of these for a damaged file
    return uris


def earlier_thumbnails(reports: Iterable[Path]) -> Mapping[str, str]:
    """Data URIs by image id, from pages written before: for when the pictures are out of reach."""
    found: dict[str, str] = {}
    for report in reports:
        try:
            text = report.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for image_id, uri in _EARLIER.findall(text):
            found.setdefault(html.unescape(image_id), uri)
    return found


def shape_of(uris: Iterable[str | None]) -> str:
    """The box that suits most pictures: "square", "wide" or "tall"."""
    ratios = []
    for uri in list(filter(None, uris))[:60]:
        content = io.BytesIO(base64.b64decode(uri.partition(",")[2]))
        with (
            contextlib.suppress(OSError, ValueError, SyntaxError),  # of a page that is damaged
            Image.open(content, formats=("WEBP", "JPEG")) as image,
        ):
            ratios.append(image.width / image.height)
    middle = sorted(ratios)[len(ratios) // 2] if ratios else 1.3
    return "wide" if middle > 1.15 else "tall" if middle < 0.87 else "square"


def data_uri(image: Image.Image, side: int, quality: int) -> str:
    """A picture as a data URI, its longer side at most `side` pixels."""
    scale = side / max(image.size)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    else:
        quality = max(quality, 90)  # a small picture is shown enlarged, and costs little
    buffer = io.BytesIO()
    # a Pillow built from source may lack WebP
    kind = "webp" if features.check("webp") else "jpeg"
    image.save(buffer, kind, quality=quality, method=2)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
