"""How chains and rows lie on the devices of a mesh, and the program that each device runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.devices import CHAINS, DATA, Devices
from sgworld_mcmc.hosts import all_of

__all__ = ["Layout", "is_spread", "layout_of", "on_this_host"]


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
