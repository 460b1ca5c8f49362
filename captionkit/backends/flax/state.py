"""Training state on disk, written in the background. All of orbax's names are in this file."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from safetensors.numpy import load_file, save_file

from captionkit.backends.flax.step import TrainState
from captionkit.errors import CheckpointError

_ARRAYS = "state"  # in a checkpoint: an orbax checkpoint of all but the weights
_ARRAYS_OF_ONE = "state.safetensors"  # instead of it, from a run of several processes
_NUMBERS = "captionkit-state.json"  # the loss since the last log


def write_state(folder: Path, state: TrainState, numbers: dict[str, Any]) -> None:
    """Write what a resumed run needs besides the weights, which model.safetensors holds.

    state: numpy arrays. numbers: JSON values.
    """
    from orbax.checkpoint import v1 as ocp

    if jax.process_count() == 1:
        ocp.save((folder / _ARRAYS).absolute(), _by_path(state))
    else:  # orbax would wait for the other processes, which train on
        save_file(_by_path(state), folder / _ARRAYS_OF_ONE)
    (folder / _NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")


def read_state(folder: Path, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """The state (with the weights of `like`) and the numbers that `write_state` wrote.

    Raises CheckpointError where the state is of another model or backend.
    """
    from orbax.checkpoint import v1 as ocp

    if (folder / _ARRAYS_OF_ONE).is_file():
        read = load_file(folder / _ARRAYS_OF_ONE)
    elif (folder / _ARRAYS).is_dir():
        read = ocp.load((folder / _ARRAYS).absolute())
    else:
        raise CheckpointError(
            f"{folder} holds no training state of the Flax backend, so it cannot be resumed with "
            "it. Go on with the backend that began the run, or start a new run from its weights: "
            "model=" + repr(str(folder))
        )
    expected = _by_path(like)
    differ = sorted(
        path
        for path in read.keys() | expected.keys()
        if path not in read or path not in expected or read[path].shape != expected[path].shape
    )
    if differ:
        more = ", ..." if len(differ) > 4 else ""
        raise CheckpointError(
            f"The training state in {folder} does not fit this run: {', '.join(differ[:4])}{more} "
            "differ. Were other tensors frozen? Resume with the recipe that the run began with."
        )
    leaves, structure = jax.tree.flatten(like._replace(params={}))
    leaves = [read[path] for path in expected]
    state = jax.tree.unflatten(structure, leaves)._replace(params=like.params)
    return state, json.loads((folder / _NUMBERS).read_text(encoding="utf-8"))


class BackgroundWriter:
    """Writes one thing at a time, while training goes on."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="captionkit-writer")
        self.pending: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Begin to write, when what was begun before is written."""
        self.wait()
        self.pending = self.pool.submit(write)

    def wait(self) -> None:
        """Wait until all is written. Raises what the writing raised."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def raise_failure(self) -> None:
        """Raise what the writing raised, if it has ended; without waiting for it."""
        if self.pending is not None and self.pending.done():
            self.wait()

    def close(self) -> None:
        """Finish what was begun, whatever becomes of it."""
        self.pool.shutdown(wait=True)


def _by_path(state: TrainState) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(state._replace(params={}))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
