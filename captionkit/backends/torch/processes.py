"""The processes that torchrun started, connected."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from captionkit import lifeline, processes
from captionkit.errors import ProcessError, first_line
from captionkit.processes import Processes

_HOW = "Start them with torchrun, or choose the backend flax."
_LONGEST = timedelta(days=1)  # one process may caption or write for long while the others wait


def connect() -> None:
    """Connect the processes of the run, where there are several. All of them call it.

    What they tell one another goes by way of the CPU (gloo), whatever their gradients take.
    Raises ProcessError where one does not come.
    """
    index, count = processes.launched()
    if processes.connected().count == count:
        return
    processes.check_launcher("WORLD_SIZE", _HOW)
    try:
        if dist.is_initialized():
            group = dist.new_group(backend="gloo", timeout=_LONGEST)
        else:
            dist.init_process_group("gloo")
            group = dist.new_group(timeout=_LONGEST)
        exchange = _Exchange(group, index, count)
        group_of_all = Processes(index, count, exchange.gather, exchange.broadcast)
        lifeline.hold(group_of_all, os.environ.get("MASTER_ADDR", "localhost"))
    except (RuntimeError, OSError, ValueError) as error:
        raise ProcessError(
            f"The {count} processes of this run could not connect: {first_line(error)}. Were all "
            "of them started, with the same MASTER_ADDR and MASTER_PORT?"
        ) from None
    processes.connect(group_of_all)


class _Exchange:
    """Bytes as tensors; the lengths go ahead."""

    def __init__(self, group: Any, index: int, count: int):
        self.group = group
        self.index = index
        self.count = count

    def gather(self, content: bytes) -> list[bytes]:
        """Everyone's."""
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(lengths, torch.tensor([len(content)]), self.group)
        longest = max(int(length) for length in lengths)
        if not longest:
            return [b""] * self.count
        padded = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.count)]
        dist.all_gather(padded, _tensor(content, longest), self.group)
        return [
            row[: int(length)].numpy().tobytes()
            for row, length in zip(padded, lengths, strict=True)
        ]

    def broadcast(self, content: bytes) -> bytes:
        """Those of process 0."""
        length = torch.tensor([len(content)])
        dist.broadcast(length, 0, self.group)
        size = int(length)
        told = _tensor(content if self.index == 0 else b"", size)
        if size:
            dist.broadcast(told, 0, self.group)
        return told.numpy().tobytes()


def _tensor(content: bytes, size: int) -> torch.Tensor:
    padded = torch.zeros(size, dtype=torch.uint8)
    if content:
        padded[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return padded
