"""Image -> uint8 pixels, as the checkpoint's own Hugging Face image processor would give them.

Scaling to float and normalising is left to the accelerator: `(pixels * scale - mean) / std`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captionkit.data.images import open_image
from captionkit.errors import CheckpointError, ImageError

if TYPE_CHECKING:
    from PIL import Image

_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# What a file does not say, its processor type says (transformers' class defaults).
_BILINEAR, _BICUBIC = 2, 3
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {
        "size": {"height": 224, "width": 224}, "resample": _BILINEAR,
        "do_center_crop": False, "image_mean": _HALF, "image_std": _HALF,
    },
    "DeiTImageProcessor": {
        "size": {"height": 256, "width": 256}, "resample": _BICUBIC,
        "do_center_crop": True, "image_mean": _HALF, "image_std": _HALF,
    },
    "CLIPImageProcessor": {
        "size": {"shortest_edge": 224}, "resample": _BICUBIC,
        "do_center_crop": True, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD,
    },
    "BlipImageProcessor": {
        "size": {"height": 384, "width": 384}, "resample": _BICUBIC,
        "do_center_crop": False, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD,
    },
}  # fmt: skip
_COMMON = {
    "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "crop_size": {"height": 224, "width": 224},
}  # fmt: skip

# Files from before transformers 4.25 may name no type; the model's type decides then.
_TYPE_OF_MODEL = {
    "git": "CLIPImageProcessor", "clip": "CLIPImageProcessor", "clip_vision_model":
    "CLIPImageProcessor", "vit": "ViTImageProcessor", "trocr": "ViTImageProcessor",
    "swin": "ViTImageProcessor", "deit": "DeiTImageProcessor", "blip": "BlipImageProcessor",
}  # fmt: skip
_KNOWN_STEPS = {
    "do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb",
}  # fmt: skip

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

        Raises CheckpointError where neither is there, or where they ask for a step that is not
        known here.
        """
        settings, file = _read(Path(folder))
        kind = _type(settings, file)
        given = {name: value for name, value in settings.items() if value is not None}
        settings = _COMMON | _DEFAULTS[kind] | given
        _refuse_unknown_steps(settings, kind, file)

        shortest = "shortest_edge" in _DEFAULTS[kind]["size"]
        size = _size(settings["size"], shortest, file) if settings["do_resize"] else None
        crop = _size(settings["crop_size"], False, file) if settings["do_center_crop"] else None
        if not (isinstance(size, tuple) or isinstance(crop, tuple)):
            raise CheckpointError(
                f"{file}: the images would not all have one size (size={settings['size']}, "
                f"do_resize={settings['do_resize']}, do_center_crop=False), so they make no batch. "
                'Set do_center_crop, or size to {"height": ..., "width": ...}.'
            )
        if not isinstance(settings["resample"], int) or not 0 <= settings["resample"] <= 5:
            raise CheckpointError(f"{file}: resample={settings['resample']!r} is not 0 to 5.")
        normalize = settings["do_normalize"]
        return cls(
            type=kind,
            size=size,
            crop=crop if isinstance(crop, tuple) else None,
            resample=settings["resample"],
            scale=float(settings["rescale_factor"]) if settings["do_rescale"] else 1.0,
            mean=_channels(settings["image_mean"], "image_mean", file) if normalize else (0, 0, 0),
            std=_channels(settings["image_std"], "image_std", file) if normalize else (1, 1, 1),
        )

    @classmethod
    def square(
        cls,
        size: int,
        mean: Sequence[float] = _HALF,
        std: Sequence[float] = _HALF,
    ) -> Preprocessor:
        """Whole images resized to `size` x `size`, for a model trained from a bare config."""
        red, green, blue = mean
        mean, (r, g, b) = (red, green, blue), std
        return cls("ViTImageProcessor", (size, size), None, _BICUBIC, 1 / 255, mean, (r, g, b))

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
        assert isinstance(fixed, tuple)  # from_checkpoint refuses the rest
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


def _read(folder: Path) -> tuple[dict[str, Any], Path]:
    # transformers 5 nests the image processor in processor_config.json, and prefers it there
    for name in ("processor_config.json", "preprocessor_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from None
        if name == "processor_config.json" and isinstance(settings, dict):
            settings = settings.get("image_processor")
            if settings is None:
                continue
        if not isinstance(settings, dict):
            raise CheckpointError(f"{file} should hold the settings of an image processor.")
        return settings, file
    raise CheckpointError(
        f"{folder} has no image processor: neither preprocessor_config.json nor a "
        "processor_config.json with an image_processor in it. Copy it from the original checkpoint."
    )


def _type(settings: Mapping[str, Any], file: Path) -> str:
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if not kind:
        kind = _TYPE_OF_MODEL.get(_model_type(file.parent / "config.json"), "")
    name = str(kind).replace("FeatureExtractor", "ImageProcessor")
    name = name.removesuffix("Fast").removesuffix("Pil")
    if name not in _DEFAULTS:
        found = f"an image processor of type {kind!r}" if kind else "no type of image processor"
        raise CheckpointError(f"{file} names {found}. Supported: {', '.join(_DEFAULTS)}.")
    return name


def _model_type(file: Path) -> str:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(config, dict):
        return ""
    encoder = config.get("encoder")  # of a vision-encoder-decoder
    return str((encoder if isinstance(encoder, dict) else config).get("model_type", ""))


def _refuse_unknown_steps(settings: Mapping[str, Any], kind: str, file: Path) -> None:
    unknown = {
        name: value
        for name, value in settings.items()
        if value and name not in _KNOWN_STEPS and (name.startswith("do_") or name == "pad_size")
    }
    if settings.get("use_square_size"):
        unknown["use_square_size"] = True
    if unknown:
        listed = ", ".join(f"{name}={value!r}" for name, value in unknown.items())
        raise CheckpointError(
            f"{file}: {listed} is a step that captionkit does not know of a {kind}; without it the "
            "model would see other pixels than it was trained on."
        )


def _size(value: Any, shortest: bool, file: Path) -> tuple[int, int] | int:
    """(height, width), or the shortest edge: what old files' plain number is for CLIP."""
    if isinstance(value, Mapping):
        value = {name: edge for name, edge in value.items() if edge is not None}
        if set(value) == {"height", "width"}:
            value = [value["height"], value["width"]]
        elif set(value) == {"shortest_edge"}:
            value, shortest = value["shortest_edge"], True
    if isinstance(value, int) and value > 0:
        return value if shortest else (value, value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return value[0], value[1]
    raise CheckpointError(
        f'{file}: the size {value!r} is not known; expected {{"height": ..., "width": ...}}, '
        '{"shortest_edge": ...} or a number.'
    )


def _channels(value: Any, name: str, file: Path) -> tuple[float, float, float]:
    values = [value] * 3 if isinstance(value, (int, float)) else value
    if (
        isinstance(values, (list, tuple))
        and len(values) == 3
        and all(isinstance(v, (int, float)) for v in values)
    ):
        red, green, blue = (float(v) for v in values)
        return red, green, blue
    raise CheckpointError(f"{file}: {name} should be one number or three, found {value!r}.")
