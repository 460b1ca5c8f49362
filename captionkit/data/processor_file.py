"""Reading the settings of a Hugging Face image processor from a checkpoint, without transformers.

Knows the two file forms (transformers 4 and 5), the plain numbers of older files, and the defaults
of the processor types below. What would change the pixels in a way not known here is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captionkit.errors import CheckpointError
from captionkit.settings import is_finite

_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_BILINEAR, _BICUBIC = 2, 3  # PIL.Image.Resampling

# What a file does not say, its processor type says (the defaults of transformers' classes).
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
    "SiglipImageProcessor": {
        "size": {"height": 224, "width": 224}, "resample": _BICUBIC,
        "do_center_crop": False, "image_mean": _HALF, "image_std": _HALF,
    },
    "BitImageProcessor": {  # DINOv2
        "size": {"shortest_edge": 224}, "resample": _BICUBIC,
        "do_center_crop": True, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD,
    },
    "BeitImageProcessor": {
        "size": {"height": 224, "width": 224}, "resample": _BICUBIC,
        "do_center_crop": False, "image_mean": _HALF, "image_std": _HALF,
    },
    "ConvNextImageProcessor": {
        "size": {"shortest_edge": 384}, "resample": _BICUBIC,
        "do_center_crop": False, "image_mean": _HALF, "image_std": _HALF, "crop_pct": 224 / 256,
    },
}  # fmt: skip
_COMMON = {
    "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "crop_size": {"height": 224, "width": 224},
}  # fmt: skip
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")

# Old files name no type; the type of the model, or of its encoder, decides then.
_TYPE_OF_MODEL = {
    "git": "CLIPImageProcessor",
    "clip": "CLIPImageProcessor",
    "clip_vision_model": "CLIPImageProcessor",
    "vit": "ViTImageProcessor",
    "swin": "ViTImageProcessor",
    "deit": "DeiTImageProcessor",
    "beit": "BeitImageProcessor",
    "dinov2": "BitImageProcessor",
    "siglip": "SiglipImageProcessor",
    "siglip_vision_model": "SiglipImageProcessor",
    "blip": "BlipImageProcessor",
}


def read_processor(folder: Path) -> dict[str, Any]:
    """The fields of a `Preprocessor` from a checkpoint's folder. Raises CheckpointError."""
    given, file = _read(folder)
    kind = _type(given, file)
    given = {name: value for name, value in given.items() if value is not None}
    settings: dict[str, Any] = {**_COMMON, **_DEFAULTS[kind], **given}
    _refuse_unknown_steps(settings, kind, file)

    # a plain number is the shortest edge for CLIP, and a square for the others
    shortest = "shortest_edge" in _DEFAULTS[kind]["size"]
    size = _size(settings["size"], shortest, file) if settings["do_resize"] else None
    crop = _size(settings["crop_size"], False, file) if settings["do_center_crop"] else None
    if kind == "ConvNextImageProcessor" and isinstance(size, int) and crop is None:
        kind, size, crop = _convnext(size, _number(settings, "crop_pct", file))
    if not (isinstance(size, tuple) or isinstance(crop, tuple)):
        raise CheckpointError(
            f"{file}: the images would not all have one size (size={settings['size']}, "
            f"do_resize={settings['do_resize']}, do_center_crop={settings['do_center_crop']}), so "
            'they make no batch. Set do_center_crop, or size to {"height": ..., "width": ...}.'
        )
    if settings["resample"] not in range(6):
        raise CheckpointError(f"{file}: resample={settings['resample']!r} is not one of 0 to 5.")
    normalize = settings["do_normalize"]
    return {
        "type": kind,
        "size": size,
        "crop": crop,
        "resample": int(settings["resample"]),
        "scale": _number(settings, "rescale_factor", file) if settings["do_rescale"] else 1.0,
        "mean": _channels(settings, "image_mean", file) if normalize else (0.0, 0.0, 0.0),
        "std": _channels(settings, "image_std", file) if normalize else (1.0, 1.0, 1.0),
    }


def _convnext(
    size: int, crop_pct: float
) -> tuple[str, tuple[int, int] | int, tuple[int, int] | None]:
    """The processor with the same pixels: ConvNeXT squeezes images whole from 384 pixels on."""
    if size >= 384:
        return "ViTImageProcessor", (size, size), None
    return "CLIPImageProcessor", int(size / crop_pct), (size, size)


def _read(folder: Path) -> tuple[dict[str, Any], Path]:
    # transformers 5 nests the image processor in processor_config.json, and prefers it there
    for name in ("processor_config.json", "preprocessor_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        settings = _json(file)
        if isinstance(settings, dict) and name == "processor_config.json":
            if "image_processor" not in settings:
                continue
            settings = settings["image_processor"]
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
        config = (
            _json(file.parent / "config.json") if (file.parent / "config.json").is_file() else 0
        )
        config = config if isinstance(config, dict) else {}
        part = config["encoder"] if isinstance(config.get("encoder"), dict) else config
        kind = _TYPE_OF_MODEL.get(str(part.get("model_type")))
    name = str(kind).replace("FeatureExtractor", "ImageProcessor")
    name = name.removesuffix("Fast").removesuffix("Pil")
    if name not in _DEFAULTS:
        found = f"an image processor of type {kind!r}" if kind else "no type of image processor"
        raise CheckpointError(f"{file} names {found}. Supported: {', '.join(_DEFAULTS)}.")
    return name


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None


def _refuse_unknown_steps(settings: Mapping[str, Any], kind: str, file: Path) -> None:
    unknown = [
        f"{name}={value!r}"
        for name, value in settings.items()
        if value
        and name not in _STEPS
        and (name.startswith("do_") or name in ("pad_size", "use_square_size"))
    ]
    if unknown:
        raise CheckpointError(
            f"{file}: {', '.join(unknown)} is a step that captionkit does not know of a {kind}; "
            "without it the model would see other pixels than it was trained on."
        )


def _size(value: Any, shortest: bool, file: Path) -> tuple[int, int] | int:
    """(height, width), or the length of the shortest edge."""
    edges = value
    if isinstance(value, Mapping):
        edges = {name: edge for name, edge in value.items() if edge is not None}
        if set(edges) == {"height", "width"}:
            edges = [edges["height"], edges["width"]]
        elif set(edges) == {"shortest_edge"}:
            edges, shortest = edges["shortest_edge"], True
    if _is_length(edges):
        return edges if shortest else (edges, edges)
    if isinstance(edges, list) and len(edges) == 2 and all(_is_length(edge) for edge in edges):
        return edges[0], edges[1]
    raise CheckpointError(
        f'{file}: the size {value!r} is not known; expected {{"height": ..., "width": ...}}, '
        '{"shortest_edge": ...} or a number.'
    )


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number(settings: Mapping[str, Any], name: str, file: Path) -> float:
    value = settings[name]
    if not is_finite(value):
        raise CheckpointError(f"{file}: {name} should be a number, found {value!r:.100}.")
    return float(value)


def _channels(settings: Mapping[str, Any], name: str, file: Path) -> tuple[float, float, float]:
    value = settings[name]
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) != 3 or not all(map(is_finite, values)) or (name == "image_std" and 0 in values):
        raise CheckpointError(
            f"{file}: {name} should be one number or three (of red, green and blue), not 0 for a "
            f"standard deviation; found {value!r:.100}."
        )
    red, green, blue = (float(number) for number in values)
    return red, green, blue
