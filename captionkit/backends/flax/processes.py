"""Several processes, connected by jax.distributed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import jax
import numpy as np

from captionkit import lifeline, processes
from captionkit.errors import ConfigError, ProcessError, first_line
from captionkit.processes import Processes

_HOW = (
    "Start each process of the Flax backend with JAX_COORDINATOR_ADDRESS (host:port of process 0), "
    "JAX_NUM_PROCESSES and JAX_PROCESS_ID in its environment."
)
_SECONDS_TO_CONNECT = 100
_SECONDS_WITHOUT_HEARTBEAT = 100  # of a machine that is gone; a process's end the lifeline tells
_SMALLEST = 1 << 10  # bytes; what is exchanged is filled up to a power of two, each compiled once


def connect() -> None:
    """Connect the processes of the run, where there are several. All of them call it.

    It must come before anything else that JAX does. Raises ConfigError and ProcessError.
    """
    index, count = processes.launched()
    if processes.connected().count == count:
        if count == 1 and jax.process_count() > 1:
            raise ConfigError(f"jax.distributed connects {jax.process_count()} processes. {_HOW}")
        return
    processes.check_launcher("JAX_NUM_PROCESSES", _HOW)
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ConfigError(f"JAX_COORDINATOR_ADDRESS={address!r}. {_HOW}")
    try:
        if not jax.distributed.is_initialized():
            # SIGTERM is ours: a run saves a checkpoint and stops
            if hasattr(jax.config, "jax_enable_preemption_service"):  # since jax 0.8.2
                jax.config.update("jax_enable_preemption_service", False)
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(
                address, count, index,
                initialization_timeout=_SECONDS_TO_CONNECT,
                heartbeat_timeout_seconds=_SECONDS_WITHOUT_HEARTBEAT,
                shutdown_timeout_seconds=_SECONDS_WITHOUT_HEARTBEAT,
            )  # fmt: skip
        together = Processes(index, count, _gather, _broadcast)
        with _stdout_as_stderr():
            lifeline.hold(together, host.strip("[]"))
    except (RuntimeError, OSError, ValueError) as error:
        raise ProcessError(
            f"The {count} processes of this run could not connect at {address}: "
            f"{first_line(error)}. Were all of them started, before anything else used JAX?"
        ) from None
    processes.connect(together)


def _gather(content: bytes) -> list[bytes]:
    from jax.experimental.multihost_utils import process_allgather

    lengths = process_allgather(np.int32(len(content)))
    rows = process_allgather(_filled(content, int(lengths.max())))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def _broadcast(content: bytes) -> bytes:
    from jax.experimental.multihost_utils import broadcast_one_to_all

    content = content if jax.process_index() == 0 else b""
    length = int(broadcast_one_to_all(np.int32(len(content))))
    return broadcast_one_to_all(_filled(content, length))[:length].tobytes()


def _filled(content: bytes, longest: int) -> np.ndarray:
    size = max(_SMALLEST, 1 << (longest - 1).bit_length()) if longest else _SMALLEST
    filled = np.zeros(size, np.uint8)
    filled[: len(content)] = np.frombuffer(content, np.uint8)
    return filled


@contextlib.contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Gloo says on standard output whom it is connected to, where captions may be expected."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
