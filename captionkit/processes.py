"""Which process of a run of several this is, and how they tell one another what they found.

Launchers say it in the environment: torchrun sets RANK and WORLD_SIZE; for JAX whoever starts the
processes sets JAX_PROCESS_ID and JAX_NUM_PROCESSES. All processes make the same calls; a backend
connects them, and one of them, the first, writes the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from captionkit.errors import ConfigError

_VARIABLES = (("RANK", "WORLD_SIZE"), ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"))


@dataclass(frozen=True)
class Processes:
    """A run's processes, as one of them sees them.

    index: of this one; number 0 writes the files. count: how many there are.
    gather: everyone's bytes, in the order of the processes. broadcast: those of process 0, whatever
    the others give. All processes call either in the same order, and wait in it for one another.
    """

    index: int = 0
    count: int = 1
    gather: Callable[[bytes], list[bytes]] = lambda content: [content]
    broadcast: Callable[[bytes], bytes] = lambda content: content

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.gather(b"")


_connected = Processes()


def connected() -> Processes:
    """The processes that a backend has connected; before that, and usually, this one alone."""
    return _connected


def connect(processes: Processes) -> None:
    """Take note of the connection, for a backend that has made one."""
    global _connected
    _connected = processes


def launched() -> tuple[int, int]:
    """(index, count): which process this is and of how many, as the environment says.

    Raises ConfigError where it says something impossible.
    """
    for index_name, count_name in _VARIABLES:
        index, count = os.environ.get(index_name), os.environ.get(count_name)
        if count is None and (index is None or index_name == "RANK"):
            continue  # others set RANK too; torchrun sets both
        if not (index and count and index.isdecimal() and count.isdecimal()):
            raise ConfigError(
                f"Of several processes each needs {index_name} (0, 1, ...) and {count_name} in its "
                f"environment; found {index_name}={index!r} and {count_name}={count!r}."
            )
        if int(index) >= int(count):
            raise ConfigError(
                f"{index_name}={index} is not below {count_name}={count}: processes count from 0."
            )
        if int(count) > 1:
            return int(index), int(count)
    return 0, 1


def is_main_process() -> bool:
    """Whether this process writes files and shows progress."""
    return launched()[0] == 0


def check_launcher(count_name: str, how: str) -> None:
    """Raise ConfigError where several processes were started, but not the way a backend needs.

    count_name: the variable that says how many there are to this backend; how: to start them.
    """
    for _, other in _VARIABLES:
        count = os.environ.get(other, "1")
        if other != count_name and count.isdecimal() and int(count) > 1:
            raise ConfigError(f"{other}={count} is not how this backend's run starts. {how}")
