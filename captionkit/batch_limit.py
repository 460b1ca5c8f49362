"""Batches that fit the memory of a device: one that does not is halved, and that is remembered."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import TypeVar

from captionkit.errors import ConfigError

Result = TypeVar("Result")


class BatchLimit:
    """How much of each kind of work fits at once, as far as it was tried.

    device: gives its name, for messages. out_of_memory: whether an error says that memory ran out.
    release: gives back what a failed attempt left behind.
    """

    def __init__(
        self,
        device: Callable[[], str],
        out_of_memory: Callable[[Exception], bool],
        release: Callable[[], None] = lambda: None,
    ):
        self.device = device
        self.out_of_memory = out_of_memory
        self.release = release
        self._largest: dict[Hashable, int] = {}
        self._warned = False

    def run(
        self, kind: Hashable, count: int, batch_size: int, work: Callable[[int, int, int], Result]
    ) -> list[Result]:
        """The results of `work(first, last, size)` over the range 0 to `count`, in order.

        kind: of work that takes as much memory, such as captioning with so many beams.
        size: what the parts have, of which the last may be shorter than the others.

        Raises ConfigError where not even one fits.
        """
        results: list[Result] = []
        first = 0
        while first < count:
            size = min(batch_size, count, self._largest.get(kind, batch_size))
            last = min(first + size, count)
            try:
                results.append(work(first, last, size))
            except Exception as error:
                if not self.out_of_memory(error):
                    raise
                if size == 1:
                    raise ConfigError(
                        f"Not even one image at a time fits the memory of {self.device()}. Less is "
                        "needed with fewer num_beams or num_return_sequences, a smaller "
                        "max_new_tokens, or dtype='bf16'; device='cpu' has the machine's memory."
                    ) from error
                failed = size
            else:
                first, failed = last, 0
            if failed:  # here and not above, where the error still holds on to memory
                self._largest[kind] = failed // 2
                self.release()
            elif size < min(batch_size, count) and not self._warned:
                self._warned = True
                warnings.warn(
                    f"{min(batch_size, count)} images at once do not fit the memory of "
                    f"{self.device()}: going on with {size}. With batch_size={size} (in a run "
                    f"eval_batch_size={size}) nothing is tried in vain.",
                    stacklevel=2,
                )
        return results
