"""The devices of a run, and how many of them share chains and rows: chains first.

The devices form a mesh with two axes. Each group of devices along ``"chains"`` advances its own
chains and exchanges nothing with the others. Along ``"data"`` each device has its own part of every
batch, and a step sums their gradients, D numbers for each chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sgworld_mcmc.checks import check_integer

__all__ = ["CHAINS", "DATA", "Devices", "resolve_devices"]

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
