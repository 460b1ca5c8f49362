"""Image -> uint8 pixels, as the checkpoint's own Hugging Face image processor would give them.

Decoded once, resized once at most, equal to the last bit. Scaling to float and normalising is left
to the accelerator, which then moves a quarter of the bytes: `(pixels * scale - mean) / std`.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captionkit.data.images import open_image, orientation_of
from captionkit.data.processor_file import read_processor
from captionkit.errors import CheckpointError, ImageError

if TYPE_CHECKING:
    from captionkit.types import ImageSource

_BICUBIC = 3
_MOST_PIXELS = 2**27  # of an intermediate image; 1 x 20,000 pixels would become 224 x 4,480,000


@dataclass(frozen=True)
class Preprocessor:
    """Resize, crop and hand over as uint8; build with `from_checkpoint` or `square`.

    `(pixels * scale - mean) / std` is what the Hugging Face processor calls pixel_values.
    """

    type: str  # image_processor_type, without "Fast" or "Pil"
    size: tuple[int, int] | int | None  # (height, width), the shortest edge, or as they are
    crop: tuple[int, int] | None  # (height, width) of the centre crop
    resample: int  # a PIL.Image.Resampling
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> np.ndarray:
        """An upright RGB image as uint8 `(height, width, 3)`. Raises ImageError."""
        if image.mode != "RGB":
            image = open_image(image)
        return self._fit(image, self._resized(image.height, image.width))

    def read(
        self, source: ImageSource, fast_jpeg: bool = False, allow_urls: bool = False
    ) -> np.ndarray:
        """Open an image as `open_image` does: uint8 `(height, width, 3)`. Raises ImageError.

        fast_jpeg: have a large JPEG decoded at a half, a quarter or an eighth of its size, if that
        is no smaller than what it is resized to. That averages pixels before the resize, so they
        differ from those of the Hugging Face processor.
        """
        scaled = self._scaled_jpeg(source) if fast_jpeg and self.size is not None else None
        return self(open_image(source, allow_urls)) if scaled is None else self._fit(*scaled)

    def pixel_values(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 `(..., height, width, 3)` as the processor's float32 `(..., 3, height, width)`.

        For the pixels of other models or a comparison; the backends do this on the device.
        """
        # a channel has 256 values: each is computed once, in the processor's own order and types
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        table = ((np.arange(256.0)[:, None] * self.scale).astype(np.float32) - mean) / std
        values = np.empty((*pixels.shape[:-3], 3, *pixels.shape[-3:-1]), np.float32)
        for channel in range(3):
            np.take(
                table[:, channel], pixels[..., channel], out=values[..., channel, :, :], mode="clip"
            )
        return values

    @property
    def height(self) -> int:
        """Rows of every array that it returns."""
        return self._fixed[0]

    @property
    def width(self) -> int:
        """Columns of every array that it returns."""
        return self._fixed[1]

    @classmethod
    def from_checkpoint(cls, folder: str | Path) -> Preprocessor:
        """What `processor_config.json` or `preprocessor_config.json` in a model's folder says.

        Raises CheckpointError where neither is there, or where it asks for a step that is not
        known here.
        """
        return cls(**read_processor(Path(folder)))

    def require_size(
        self, expected: tuple[int, int] | None, folder: Path, taker: str = "the model"
    ) -> None:
        """Raise CheckpointError unless images are of the (height, width) that a model takes.

        None: it takes any. folder: where both came from.
        """
        if expected not in (None, (self.height, self.width)):
            raise CheckpointError(
                f"{folder}: the image processor makes images of {self.height} x {self.width} "
                f"pixels, and {taker} takes {expected[0]} x {expected[1]}. Correct "
                "preprocessor_config.json."
            )

    @classmethod
    def square(
        cls,
        size: int,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> Preprocessor:
        """Whole images resized to `size` x `size`, for a model trained from a bare config."""
        red, green, blue = mean
        r, g, b = std
        return cls(
            "ViTImageProcessor",
            (size, size),
            None,
            _BICUBIC,
            1 / 255,
            (red, green, blue),
            (r, g, b),
        )

    def save(self, folder: str | Path) -> None:
        """Write a `preprocessor_config.json` that `AutoImageProcessor` reads."""
        settings: dict[str, Any] = {
            "image_processor_type": self.type,
            "do_convert_rgb": True,
            "do_resize": self.size is not None,
            "resample": self.resample,
            "do_center_crop": self.crop is not None,
            "do_rescale": True,
            "rescale_factor": self.scale,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        if isinstance(self.size, int):
            settings["size"] = {"shortest_edge": self.size}
        elif self.size is not None:
            settings["size"] = dict(zip(("height", "width"), self.size, strict=True))
        if self.crop is not None:
            settings["crop_size"] = dict(zip(("height", "width"), self.crop, strict=True))
        path = Path(folder) / "preprocessor_config.json"
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @property
    def _fixed(self) -> tuple[int, int]:
        fixed = self.crop or self.size
        assert isinstance(fixed, tuple)  # read_processor refuses the rest
        return fixed

    def _fit(
        self,
        image: Image.Image,
        resized: tuple[int, int],
        box: tuple[float, float, float, float] | None = None,
    ) -> np.ndarray:
        """Resize an RGB image, or a box of it, to (height, width), crop, and copy."""
        if self.size is not None:
            image = image.resize(resized[::-1], self.resample, box)
        if self.crop is not None:
            # a crop that reaches over the edge is padded with black, by Pillow as by transformers
            height, width = self.crop
            top, left = (image.height - height) // 2, (image.width - width) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.array(image)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this height and width is resized to."""
        if self.size is None:
            return height, width
        if isinstance(self.size, tuple):
            return self.size
        short, long = sorted((height, width))
        longer = int(self.size * long / short)  # rounds down, as transformers does
        if self.size * longer > _MOST_PIXELS:
            raise ImageError(
                f"An image of {width} x {height} pixels is too narrow: with its shorter side "
                f"resized to {self.size} its longer one would have {longer:,} pixels."
            )
        return (longer, self.size) if width <= height else (self.size, longer)

    def _scaled_jpeg(self, source: Any) -> tuple[Image.Image, tuple[int, int], Any] | None:
        """What `_fit` takes, of a JPEG that is decoded smaller; None: decode in full."""
        if isinstance(source, (Image.Image, np.ndarray)):
            return None
        try:
            if not isinstance(source, (str, os.PathLike)):
                given = isinstance(source, (bytes, bytearray))
                source = io.BytesIO(source if given else source.read_bytes())
            with Image.open(source, formats=("JPEG",)) as image:
                orientation = orientation_of(image)
                on_its_side = orientation > 4
                height, width = image.size if on_its_side else image.size[::-1]
                height, width = self._resized(height, width)
                needed = (height, width) if on_its_side else (width, height)
                drafted = image.draft(image.mode, needed)
                if drafted is None:
                    return None
                upright = open_image(image)
            return upright, (height, width), _turned(drafted[1], upright.size, orientation)
        except Exception:  # no JPEG, or a damaged one: decoding it in full says what it is
            return None


def _turned(
    box: tuple[float, ...], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """Where the picture lies in one that was decoded smaller, after that was turned upright.

    The last row and column may be in part beyond the picture, whose size need not divide.
    size: (width, height) of what was turned.
    """
    width, height = box[:1:-1] if orientation > 4 else box[2:]
    left = size[0] - width if orientation in (2, 3, 6, 7) else 0.0
    top = size[1] - height if orientation in (3, 4, 7, 8) else 0.0
    return left, top, left + width, top + height
