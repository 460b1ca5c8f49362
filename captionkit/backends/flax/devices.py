"""Which devices and which precision to use; what the machine does not have is a ConfigError."""

from __future__ import annotations

from importlib.metadata import version

import jax
import jax.numpy as jnp

from captionkit.backends.flax.options import FlaxOptions
from captionkit.backends.flax.processes import connect
from captionkit.errors import ConfigError
from captionkit.recipe import TrainingConfig

DTYPES = {"fp32": jnp.float32, "bf16": jnp.bfloat16, "fp16": jnp.float16}


def check(training: TrainingConfig, options: FlaxOptions) -> None:
    """Raise ConfigError for a run that cannot be shared out over this machine's devices."""
    devices = choose_devices(options)
    choose_precision(training.precision, devices[0])
    rows_per_pass(training, len(devices))


def choose_devices(options: FlaxOptions) -> list[jax.Device]:
    """The devices that a run uses, all of one kind, those of its other processes among them."""
    connect()
    found = _chosen(options)
    if len(found) % options.fsdp:
        raise ConfigError(
            f"fsdp={options.fsdp} does not divide {len(found)} devices. Choose a divisor."
        )
    return found


def _chosen(options: FlaxOptions) -> list[jax.Device]:
    if jax.process_count() > 1:
        if options.devices is not None:
            raise ConfigError(
                f"devices={options.devices} is for one process. Of {jax.process_count()} processes "
                "each uses all that it sees; CUDA_VISIBLE_DEVICES says which these are."
            )
        return jax.devices()
    found = jax.local_devices()
    if options.devices is not None and options.devices > len(found):
        hint = ""
        if found[0].platform == "cpu":
            hint = (
                " On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of one; for "
                'a GPU install its JAX: pip install "jax[cuda12]".'
            )
        raise ConfigError(
            f"devices={options.devices} was asked for, but JAX sees {len(found)} "
            f"({found[0].device_kind}).{hint}"
        )
    return found[: options.devices]


def versions() -> dict[str, str]:
    """The versions of the libraries that a result depends on."""
    return {name: version(name) for name in ("jax", "flax", "optax", "transformers")}


def choose_precision(wanted: str, device: jax.Device) -> str:
    """fp32, bf16 or fp16: the wanted one if the device can, or the best it can."""
    if wanted == "fp16" and device.platform == "cpu":
        raise ConfigError(
            "precision='fp16' needs a GPU: CPUs have no fast half-precision arithmetic. "
            "Use precision='auto', 'fp32' or 'bf16'."
        )
    if wanted != "auto":
        return wanted
    return "fp32" if device.platform == "cpu" else "bf16"


def rows_per_pass(training: TrainingConfig, devices: int) -> int:
    """Images in one pass of one device. Raises ConfigError where that is not whole."""
    parts = devices * training.accumulation_steps
    if training.batch_size % parts:
        raise ConfigError(
            f"batch_size={training.batch_size} does not divide by {devices} devices x "
            f"{training.accumulation_steps} accumulation steps. Choose a multiple of {parts}, or "
            "set devices to use fewer."
        )
    return training.batch_size // parts
