"""Which device and which precision to use; what the machine does not have is a ConfigError."""

from __future__ import annotations

import os

import torch

from captionkit.errors import ConfigError, first_line

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: str | None = None) -> torch.device:
    """The wanted device, or the best there is: cuda, mps, cpu."""
    if wanted is None:
        if torch.cuda.is_available():
            # torchrun says which of the machine's processes this is; each takes a GPU
            beside = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
            return torch.device("cuda", beside) if beside else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigError(
            f"device={wanted!r} is not a device. Use cpu, cuda, cuda:1, mps, ..."
        ) from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"device={wanted!r} was asked for, but torch sees {count} CUDA devices. "
                "Use device='cpu', or install a torch build with CUDA and its driver."
            )
    if device.type not in ("cpu", "cuda", "mps"):
        try:
            torch.zeros(1, device=device).item()
        except Exception as error:  # each kind of device says in its own way that it is not there
            raise ConfigError(
                f"device={wanted!r} cannot be used here: {first_line(error)}. Use cpu, cuda or mps."
            ) from None
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(
            "device='mps' was asked for, but this machine has none. Use device='cpu'."
        )
    return device


def choose_precision(wanted: str, device: torch.device) -> str:
    """fp32, bf16 or fp16: the wanted one if the device can, or the best it can."""
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError(
            "precision='fp16' needs a GPU: CPUs have no fast half-precision arithmetic. "
            "Use precision='auto', 'fp32' or 'bf16'."
        )
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "fp32"
