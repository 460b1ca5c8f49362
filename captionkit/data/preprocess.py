"""Image -> uint8 pixels, as the checkpoint's own Hugging Face image processor would give them.

Scaling to float and normalising is left to the accelerator: `(pixels * scale - mean) / std`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.data.images import open_image
from captionkit.data.processor_file import read_processor
from captionkit.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

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
        if self.size is not None:
            height, width = self._resized(image.height, image.width)
            image = image.resize((width, height), self.resample)
        if self.crop is not None:
            # a crop that reaches over the edge is padded with black, by Pillow as by transformers
            height, width = self.crop
            top, left = (image.height - height) // 2, (image.width - width) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.array(image)

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

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        assert self.size is not None
        short, long = sorted((height, width))
        longer = int(self.size * long / short)  # rounds down, as transformers does
        if self.size * longer > _MOST_PIXELS:
            raise ImageError(
                f"An image of {width} x {height} pixels is too narrow: with its shorter side "
                f"resized to {self.size} its longer one would have {longer:,} pixels."
            )
        return (longer, self.size) if width <= height else (self.size, longer)
