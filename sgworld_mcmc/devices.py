"""Lay chains and rows over several devices: chains first, rows where devices are left.

The devices form a mesh with two axes. Each group of devices along ``"chains"`` advances its own
chains and exchanges nothing with the others. Along ``"data"`` each device has its own part of every
batch, and a step sums their gradients, D numbers for each chain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.hosts import all_of

__all__ = [
    "CHAINS",
    "DATA",
    "Devices",
    "Layout",
    "is_spread",
    "layout_of",
    "on_this_host",
    "resolve_devices",
]

CHAINS, DATA = "chains", "data"


@dataclass(frozen=True)
class Devices:
    """The devices that a user has given, for a number of chains.

    Attributes
    ----------
    devices
        The devices, or those of the mesh.
    chains
        Number of chains that are advanced together.
    shape
        Numbers of devices along chains and data, if the user has given a mesh; else None.
    """

    devices: tuple[Any, ...]
    chains: int
    shape: tuple[int, int] | None = None

    @property
    def shards(self) -> int:
        """Number of parts of the rows, if rows are worth to be cut."""
        if self.shape is not None:
            return self.shape[1]
        each = len(self.devices) // self.hosts
        return self.hosts * each // int(np.gcd(each, self.chains))

    @property
    def hosts(self) -> int:
        """Number of processes that the devices belong to."""
        return len({device.process_index for device in self.devices})

    def mesh(self, shards: int) -> Mesh:
        """Return the mesh for batches that are cut into ``shards`` parts; 1 if they are not."""
        number = len(self.devices)
        if self.hosts > 1:  # the rows of a process lie on its own devices
            chains = number // self.shards
            table = np.array(self.devices).reshape(self.hosts, chains, -1)
            return Mesh(table.swapaxes(0, 1).reshape(chains, -1), (CHAINS, DATA))
        if self.shape is not None:
            chains, parts = self.shape
            if shards % parts:
                parts = 1
        elif shards == 1:
            chains, parts = _largest_divisor(self.chains, number), 1
        else:
            parts = _largest_divisor(shards, number)
            chains = _largest_divisor(self.chains, number // parts)
        used = np.array(self.devices[: chains * parts])
        if self.shape is not None and parts == 1:  # the first of each group
            used = np.array(self.devices).reshape(self.shape)[:, 0]
        return Mesh(used.reshape(chains, parts), (CHAINS, DATA))


def resolve_devices(devices: Any, mesh: Any, chains: int) -> Devices | None:
    """Return the devices of a run, or None if it has one and asks for nothing.

    Parameters
    ----------
    devices
        A number of devices, or a sequence of JAX devices; None for none.
    mesh
        A ``jax.sharding.Mesh`` with axes ``"chains"`` and ``"data"``, or one of them; None for
        none.
    chains
        Number of chains that are advanced together.

    Raises
    ------
    ValueError, TypeError
        If there are not so many devices, if the mesh has other axes, or if it has more devices
        along the chains than divide their number; the message says what to change.
    """
    if devices is not None and mesh is not None:
        raise ValueError("`devices` and `mesh` say the same: give one of them.")
    if mesh is not None:
        return _of_mesh(mesh, chains)
    if devices is None:
        return None
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        if not devices or not all(isinstance(x, jax.Device) for x in devices):
            raise TypeError(
                f"`devices` must be a number, or a sequence of jax.devices(), not {devices!r}."
            )
        if len(set(devices)) < len(devices):
            raise ValueError("`devices` names a device twice.")
        return _checked(Devices(tuple(devices), chains))
    there = jax.devices()
    number = check_integer("devices", devices, 1)
    if number > len(there):
        raise ValueError(
            f"`devices` asks for {number} devices, and JAX sees {len(there)} "
            f"({there[0].platform}). On a CPU, XLA_FLAGS="
            f"--xla_force_host_platform_device_count={number} makes more, before JAX is imported."
        )
    return _checked(Devices(tuple(there[:number]), chains))


def _checked(found: Devices) -> Devices:
    numbers = [device.process_index for device in found.devices]
    counts = {number: numbers.count(number) for number in numbers}
    if found.hosts > 1 and (len(set(counts.values())) > 1 or found.hosts < jax.process_count()):
        raise ValueError(
            f"`devices` takes {counts} devices by process of {jax.process_count()} processes: take "
            "as many of each, as jax.devices() has them."
        )
    return Devices(tuple(sorted(found.devices, key=lambda x: x.process_index)), found.chains)


def _of_mesh(mesh: Any, chains: int) -> Devices:
    if not isinstance(mesh, Mesh):
        raise TypeError(f"`mesh` must be a jax.sharding.Mesh, not {type(mesh).__name__}.")
    if len({device.process_index for device in mesh.devices.flat}) > 1:
        raise ValueError("`mesh` lies over several hosts: give `devices=jax.devices()` instead.")
    names = mesh.axis_names
    if not names or set(names) - {CHAINS, DATA}:
        raise ValueError(
            f"`mesh` has the axes {names}: name them 'chains' and 'data' "
            "(jax.make_mesh((2, 2), ('chains', 'data'))), or one of them."
        )
    shape = mesh.shape.get(CHAINS, 1), mesh.shape.get(DATA, 1)
    if chains % shape[0]:
        raise ValueError(
            f"`mesh` has {shape[0]} devices along 'chains', and {chains} chains are advanced "
            "together, which do not divide: change `num_chains`, or give `devices`, which finds "
            "the numbers by itself."
        )
    array = mesh.devices if names[0] == CHAINS else mesh.devices.T
    return Devices(tuple(array.ravel()), chains, shape)


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(min(number, most), 0, -1) if number % n == 0)


@dataclass(frozen=True)
class Layout:
    """How a run is laid over a mesh; static, so that compiled programs are found again by it.

    Attributes
    ----------
    mesh
        The mesh, with the axes ``"chains"`` and ``"data"``.
    given
        Number of devices that the user has given.
    """

    mesh: Mesh
    given: int

    @property
    def chains(self) -> int:
        """Number of devices along the chains."""
        return self.mesh.shape[CHAINS]

    @property
    def shards(self) -> int:
        """Number of devices along the rows."""
        return self.mesh.shape[DATA]

    def __str__(self) -> str:
        used = self.chains * self.shards
        parts = []
        if self.chains > 1 or self.shards == 1:
            parts.append(f"chains lie over {self.chains} device{'s' * (self.chains > 1)}")
        if self.shards > 1:
            lie = "" if parts else " lie"
            parts.append(f"the rows of each batch{lie} over {self.shards} devices")
        text = " and ".join(parts)
        return text + f", and {self.given - used} stay idle" * (used < self.given)

    def place(self, tree: Any, specs: Any) -> Any:
        """Return arrays on the devices of the mesh, as the prefix tree of specs says."""
        put = lambda spec, part: jax.tree.map(partial(self._put, spec), part)  # noqa: E731
        return jax.tree.map(put, specs, tree, is_leaf=lambda x: isinstance(x, P))

    def _put(self, spec: P, x: Any) -> jax.Array:
        sharding = NamedSharding(self.mesh, spec)
        there = isinstance(x, jax.Array) and not x.is_fully_addressable
        if self.hosts == 1 or there:
            return x if there else jax.device_put(x, sharding)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):  # random keys
            words = self._put(spec, jax.random.key_data(x))
            return jax.jit(jax.random.wrap_key_data, static_argnames="impl")(
                words, impl=str(jax.random.key_impl(x))
            )
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda place: x[place])

    def place_parts(self, tree: Any) -> Any:
        """Return batches (M, b, ...) whose rows lie over hosts, from those of this process."""
        sharding = NamedSharding(self.mesh, P(None, DATA))
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
        )

    @property
    def hosts(self) -> int:
        """Number of processes whose devices are in the mesh."""
        return len({device.process_index for device in self.mesh.devices.flat})

    def agreed(self, number: int) -> int:
        """Return a number of the first process, in all of them."""
        return number if self.hosts == 1 else all_of(number)[0]

    def place_data(self, data: Any) -> Any:
        """Return a :class:`~sgworld_mcmc.setup.run_plan.RunData` with its arrays on the devices."""
        return replace(self.place(data, self._specs(data)), layout=self)

    def place_feed(self, feed: Any) -> Any:
        """Return a feed with the rows of each batch over the devices; sums over them are XLA's."""
        return feed if self.shards == 1 else self.place(feed, feed.specs(DATA))

    def place_chains(self, tree: Any, vectorized: bool) -> Any:
        """Return a state, or draws, with the axis of chains over the devices."""
        return self.place(tree, P(CHAINS) if vectorized else P())

    def program(self, function: Callable, vectorized: bool) -> Callable:
        """Return ``function(state, buffers, numbers, data)`` as each device runs it.

        The chains of its state and buffers, and the rows of its data, are those of the device.
        """
        spec = P(CHAINS) if vectorized else P()

        def each(state, buffers, numbers, data):
            data = replace(data, feed=data.feed.on_axis(DATA)) if self.shards > 1 else data
            return function(state, buffers, numbers, data)

        def run(state, buffers, numbers, data):
            return jax.shard_map(
                each,
                mesh=self.mesh,
                in_specs=(spec, spec, P(), self._specs(data)),
                out_specs=(spec, spec),
                check_vma=False,
            )(state, buffers, numbers, data)

        return run

    def _specs(self, data: Any) -> Any:
        return replace(
            data,
            feed=data.feed.specs(DATA) if self.shards > 1 else P(),
            **dict.fromkeys(("constants", "originals", "tuning"), P()),
        )

    def gathered(self, tree: Any) -> Any:
        """Return whole arrays that belong to no device in particular, as other code expects."""
        return jax.tree.map(_gathered, tree)


def layout_of(devices: Devices | None, shards: int) -> Layout | None:
    """Return the layout for batches that are cut into ``shards`` parts; None for one device."""
    if devices is None:
        return None
    return Layout(devices.mesh(shards), len(devices.devices))


def is_spread(tree: Any) -> bool:
    """Return whether arrays lie over several devices.

    Programs with such arrays are called one after the other: devices that wait for each other in
    two programs at once may wait for ever.
    """
    leaves = jax.tree.leaves(tree)
    return any(isinstance(x, jax.Array) and len(x.sharding.device_set) > 1 for x in leaves)


def _gathered(x: Any) -> Any:
    if not isinstance(x, jax.Array):
        return x
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):  # random keys
        words = jnp.asarray(on_this_host(x))
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
    return from_numpy(on_this_host(x), x.dtype)


def on_this_host(x: Any) -> np.ndarray:
    """Return a whole array of which every process has all parts; random keys as their words."""
    if not isinstance(x, jax.Array):
        return np.asarray(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):
        words = jax.random.key_data if x.is_fully_addressable else jax.jit(jax.random.key_data)
        x = words(x)
    if x.is_fully_addressable:
        return np.asarray(x)
    whole = np.empty(x.shape, x.dtype)
    for shard in x.addressable_shards:
        whole[shard.index] = shard.data
    return whole
