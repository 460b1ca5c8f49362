"""Devices that work together: where state and batches lie, and how the step is compiled for them.

`Pmap` keeps the whole state on each device. `MeshOfDevices` shares it out along an axis `fsdp` of a
mesh; images are shared over both of its axes. Either may span several processes, of which each
brings the images of its own devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from captionkit.backends.flax.models.layers import FSDP, gathered
from captionkit.backends.flax.step import compile_step

_AXIS = "devices"  # of pmap
_DATA = "data"


def parallel(devices: Sequence[jax.Device], kind: str, fsdp: int, stacks: frozenset[str]) -> Any:
    """What the options ask for. stacks: paths of the parameters that have layers in front."""
    if kind == "mesh":
        return MeshOfDevices(devices, fsdp, stacks)
    return Pmap(devices)


class Pmap:
    """Plain data parallelism: equal copies of the state, a part of each batch on each device."""

    def __init__(self, devices: Sequence[jax.Device]):
        self.devices = list(devices)
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        self.positions = _positions(self.devices, self.local)
        self._mesh = Mesh(np.array(self.local), (_AXIS,))

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """See `compile_step`."""
        return _in_order(compile_step(step, self.devices), self.devices)

    def logits(self, logits: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """The model's function as it is: every device has all parameters."""
        return logits

    def initial(self, make: Callable[[Any], Any], params: Any) -> Any:
        """The state that `make` makes of the parameters."""
        return self.place(make(params))

    def place(self, state: Any) -> Any:
        """A copy of arrays on each device."""
        return jax.device_put(state, NamedSharding(self._mesh, PartitionSpec()))

    def place_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Arrays with this process's devices in front, each device's part on it (or, where there
        is one alone, all of it)."""
        spec = PartitionSpec(_AXIS) if len(self.devices) > 1 else PartitionSpec()
        return jax.device_put(batch, NamedSharding(self._mesh, spec))

    def on_one_device(self, tree: Any) -> Any:
        """The first device's copy, without copying."""
        return jax.tree.map(lambda x: x.addressable_shards[0].data, tree)

    def on_host(self, tree: Any) -> Any:
        """A copy as numpy arrays, which the next update does not touch."""
        return jax.tree.map(lambda x: np.array(x, copy=True), self.on_one_device(tree))


class MeshOfDevices:
    """`jax.jit` over a mesh with the axes `data` and `fsdp`, whose product is the devices' number.

    Weights and optimizer state are cut along one axis of each array into `fsdp` parts. The
    parameters of a layer are gathered when it is computed and dropped after it (Rajbhandari et al.
    2020, arXiv:1910.02054, stage 3). stacks: see `parallel`.
    """

    def __init__(self, devices: Sequence[jax.Device], fsdp: int, stacks: frozenset[str]):
        self.devices = list(devices)
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        self.positions = _positions(self.devices, self.local)
        self.fsdp = fsdp
        self.stacks = stacks
        self.mesh = Mesh(
            np.array(self.devices).reshape(-1, fsdp), (_DATA, FSDP), axis_types=(AxisType.Auto,) * 2
        )
        self._whole = NamedSharding(self.mesh, PartitionSpec())
        self._rows = NamedSharding(self.mesh, PartitionSpec(None, (_DATA, FSDP)))

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`step(state, batch, learning_rate, key)`, computed by all devices together; the old
        state's memory is reused.
        """
        compiled: list[Callable[..., Any]] = []

        def run(state: Any, batch: Any, learning_rate: Any, key: jax.Array) -> Any:
            if not compiled:  # the new state lies as the old one does
                places = jax.tree.map(lambda x: x.sharding, state), self._whole
                compiled.append(jax.jit(step, donate_argnums=0, out_shardings=places))
            with jax.set_mesh(self.mesh):
                return compiled[0](state, batch, learning_rate, key)

        return _in_order(run, self.devices)

    def logits(self, logits: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """The model's function with whole parameters; those of stacks it gathers layer by layer."""

        def gathering(params: Any, *rest: Any) -> jax.Array:
            def whole(path: Any, x: jax.Array) -> jax.Array:
                return x if _path(path) in self.stacks else gathered(x)

            return logits(jax.tree_util.tree_map_with_path(whole, params), *rest)

        return gathering

    def initial(self, make: Callable[[Any], Any], params: Any) -> Any:
        """The state that `make` makes of the parameters, each device making its own part."""
        params = self.place(params)
        places = self._places(jax.eval_shape(make, params))
        return jax.jit(make, out_shardings=places)(params)

    def place(self, state: Any) -> Any:
        """Arrays of the host, each device's part on it."""

        def put(x: Any, place: NamedSharding) -> jax.Array:
            whole = np.asarray(x)
            return jax.make_array_from_callback(whole.shape, place, lambda part: whole[part])

        return jax.tree.map(put, state, self._places(state))

    def place_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Arrays `(this process's devices, passes, rows, ...)` as `(passes, all rows, ...)`."""
        if len(self.devices) == 1:
            return jax.device_put(batch, self._rows)

        def put(x: np.ndarray) -> jax.Array:
            devices, passes, rows, *rest = x.shape
            local = x.swapaxes(0, 1).reshape(passes, devices * rows, *rest)
            shape = (passes, len(self.devices) * rows, *rest)
            return jax.make_array_from_process_local_data(self._rows, local, shape)

        return {name: put(array) for name, array in batch.items()}

    def on_one_device(self, tree: Any) -> Any:
        """Whole arrays on this process's first device. All processes call it."""

        def put(x: jax.Array) -> jax.Array:
            if x.is_fully_replicated:
                return x.addressable_shards[0].data
            if x.is_fully_addressable:
                return jax.device_put(x, self.local[0])
            return jax.device_put(_gathered_to_host(x), self.local[0])

        return jax.tree.map(put, tree)

    def on_host(self, tree: Any) -> Any:
        """A copy as whole numpy arrays. All processes call it."""

        def copy(x: jax.Array) -> np.ndarray:
            if x.is_fully_replicated:
                return np.array(x.addressable_shards[0].data, copy=True)
            return np.array(x, copy=True) if x.is_fully_addressable else _gathered_to_host(x)

        return jax.tree.map(copy, tree)

    def _places(self, tree: Any) -> Any:
        """How each array is cut: along its longest axis that divides, layers' own axis excepted."""

        def place(path: Any, x: Any) -> NamedSharding:
            first = 1 if any(_path(path[n:]) in self.stacks for n in range(len(path))) else 0
            axes = [n for n in range(first, len(x.shape)) if x.shape[n] % self.fsdp == 0]
            if self.fsdp == 1 or not axes:
                return self._whole
            cut = max(axes, key=lambda n: x.shape[n])
            names = [FSDP if n == cut else None for n in range(len(x.shape))]
            return NamedSharding(self.mesh, PartitionSpec(*names))

        return jax.tree_util.tree_map_with_path(place, tree)


class Votes:
    """Small numbers added up over all processes, without waiting for the devices.

    In one process they are known at once.
    """

    def __init__(self, devices: Sequence[jax.Device]):
        self.mesh = Mesh(np.array(devices), (_AXIS,))
        self.local = [d for d in devices if d.process_index == jax.process_index()]
        place = NamedSharding(self.mesh, PartitionSpec())
        self._sum = _in_order(
            jax.jit(functools.partial(jnp.sum, axis=0), out_shardings=place), devices
        )

    def cast(self, numbers: Sequence[int]) -> Any:
        """Begin to add up; what it returns is for `counted`."""
        if jax.process_count() == 1:
            return np.array(numbers)
        rows = np.zeros((len(self.local), len(numbers)), np.int32)
        rows[0] = numbers
        place = NamedSharding(self.mesh, PartitionSpec(_AXIS))
        shape = (len(self.mesh.devices), len(numbers))
        return self._sum(jax.make_array_from_process_local_data(place, rows, shape))

    def counted(self, votes: Any) -> list[int]:
        """The sums, when they are there."""
        return np.asarray(votes).tolist()


def _in_order(run: Callable[..., Any], devices: Sequence[jax.Device]) -> Callable[..., Any]:
    """The same, finished when it returns where processes share CPUs' work.

    An accelerator runs programs in the order in which they are begun, a CPU as it likes: two that
    exchange something would meet each other's messages.
    """
    if jax.process_count() == 1 or devices[0].platform != "cpu":
        return run
    return lambda *arguments: jax.block_until_ready(run(*arguments))


def _positions(devices: list[jax.Device], local: list[jax.Device]) -> range:
    """Where this process's devices stand among all: side by side, as JAX lists them."""
    first = devices.index(local[0])
    return range(first, first + len(local))


def _gathered_to_host(x: jax.Array) -> np.ndarray:
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(x, tiled=True)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")
