"""Captioning by several processes: the first reads and writes, all of them caption.

So every image is captioned once and there is one writer, however many processes there are, and
whatever number an interrupted run is taken up with. Images travel as the pixels that the model
takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy

from captionkit.bulk.config import BulkConfig
from captionkit.errors import ImageError, ProcessError
from captionkit.interrupt import stop_requested_by_signal
from captionkit.processes import Processes
from captionkit.types import Caption, Captioner

_WAITING = "waiting for process 0 to stop"


class SharedCaptioner:
    """A captioner, on process 0, that shares its images out over all processes.

    The others call `help_out` meanwhile.
    """

    def __init__(self, captioner: Captioner, processes: Processes):
        self.captioner = captioner
        self.processes = processes
        self.preprocess = getattr(captioner, "preprocess", None)
        self.defaults: Mapping[str, Any] = getattr(captioner, "defaults", {})

    def caption(
        self, images: Sequence[Any], *, seeds: Sequence[int] | None = None, **settings: Any
    ) -> list[Caption]:
        """As the captioner's own; images are PIL images or arrays. Raises `ImageError`."""
        pixels = [numpy.asarray(image, numpy.uint8) for image in images]
        shapes = [array.shape for array in pixels]
        order = {"images": shapes, "seeds": seeds and list(seeds), "settings": settings}
        self.processes.broadcast(_packed(order, b"".join(array.tobytes() for array in pixels)))
        captions: list[Caption] = []
        for told in self.processes.gather(_share(self.captioner, pixels, order, self.processes)):
            answer = json.loads(told)
            if "error" in answer:
                raise ImageError(answer["error"])
            captions += [_caption(*fields) for fields in answer["captions"]]
        return captions


def shared_out(
    captioner: Captioner, config: BulkConfig, processes: Processes
) -> tuple[Any, BulkConfig]:
    """On process 0: the captioner for all processes, and batches of as many images as all take."""
    if processes.count == 1:
        return captioner, config
    size = config.batch_size * processes.count
    return SharedCaptioner(captioner, processes), dataclasses.replace(config, batch_size=size)


@contextlib.contextmanager
def led(processes: Processes) -> Iterator[dict[str, Any]]:
    """On process 0: when the block is over, the others are told, also of an error.

    Yields what `help_out` is to return there, to be filled in.
    """
    result: dict[str, Any] = {}
    try:
        yield result
    except BaseException as error:
        if processes.count > 1:
            processes.broadcast(_packed({"error": str(error) or type(error).__name__}))
        raise
    if processes.count > 1:
        processes.broadcast(_packed({"over": result}))


def help_out(processes: Processes, load: Callable[[], Captioner]) -> dict[str, Any]:
    """On the other processes: caption what process 0 sends, until that is over.

    load: called when there is something to caption. Raises ProcessError where process 0 failed.
    """
    captioner: Captioner | None = None
    with stop_requested_by_signal(_WAITING):  # process 0 decides
        while True:
            told = processes.broadcast(b"")
            length = int.from_bytes(told[:8], "big")
            order = json.loads(told[8 : 8 + length])
            if "over" in order:
                return order["over"]
            if "error" in order:
                raise ProcessError(f"Process 0 stopped: {order['error']}")
            captioner = captioner or load()
            processes.gather(
                _share(captioner, _arrays(order, told[8 + length :]), order, processes)
            )


def _share(
    captioner: Any, pixels: list[numpy.ndarray], order: dict[str, Any], processes: Processes
) -> bytes:
    """The captions of this process's part of the images, or what is wrong with one of them."""
    size = -(-len(pixels) // processes.count)
    own = slice(processes.index * size, (processes.index + 1) * size)
    settings = dict(order["settings"])
    if order["seeds"] is not None:
        settings["seeds"] = order["seeds"][own]
    try:
        captions = captioner.caption(pixels[own], **settings) if pixels[own] else []
    except ImageError as error:
        return json.dumps({"error": str(error)}).encode()
    return json.dumps(
        {"captions": [(c.text, c.score, c.token_probabilities) for c in captions]}
    ).encode()


def _packed(order: Mapping[str, Any], pixels: bytes = b"") -> bytes:
    header = json.dumps(order).encode()
    return len(header).to_bytes(8, "big") + header + pixels


def _arrays(order: dict[str, Any], content: bytes) -> list[numpy.ndarray]:
    arrays, start = [], 0
    for shape in order["images"]:
        size = int(numpy.prod(shape))
        arrays.append(numpy.frombuffer(content, numpy.uint8, size, start).reshape(shape))
        start += size
    return arrays


def _caption(text: str, score: float, tokens: list[tuple[str, float]] | None) -> Caption:
    pairs = None if tokens is None else tuple((piece, chance) for piece, chance in tokens)
    return Caption(text, score, pairs)
