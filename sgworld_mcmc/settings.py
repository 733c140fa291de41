"""The settings of a sampler, and the one place where their public spellings become objects.

Every string that a user may give is looked up here and nowhere else, in the tables of
:mod:`sgworld_mcmc.members`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sgworld_mcmc.checks import check_choice, check_integer, check_tolerance
from sgworld_mcmc.devices import Devices
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.members import GRADIENTS, ORDERS, choose_integrator, resolve
from sgworld_mcmc.protocols import Coordinates, Integrator, Order
from sgworld_mcmc.spellings import (
    check_functions,
    check_hashable,
    read_devices,
    read_dynamics,
    read_preconditioner,
    read_schedules,
    read_steps_per_draw,
)

__all__ = ["Settings", "make_settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a kernel, fixed at construction: see :class:`sgworld_mcmc.SGWORLD`.

    Attributes
    ----------
    order, integrator
        The order of the batches and the integrator, as objects.
    batch_size, step_size, steps_per_draw
        Numbers; None stands for an automatic choice.
    gradient
        A name in :data:`GRADIENTS`, or None for an automatic choice.
    coordinates
        The class of coordinates, or None to choose; with a ``covariance`` it is :class:`Dense` or
        :class:`Diagonal`, as the shape says.
    adapt
        Whether coordinates may be made anew from pilot chains.
    covariance
        The user's estimate of the posterior covariance, (D, D) or (D,), or None.
    temperature, tolerance, record_moments
        As the user gave them.
    init_strategy
        NumPyro's initialisation strategy for the search for the mode; None is NumPyro's default.
    start
        Where chains start: ``"given"`` at the user's points; else around the mode that is found.
    step_schedule, temperature_schedule
        Functions of the step, or None. ``step_size`` is then the first value and ``temperature``
        the last one.
    dynamics
        ``"overdamped"`` or ``"kinetic"``, or ``"auto"`` if both are allowed; ``integrator`` is then
        the overdamped one.
    friction
        The friction of kinetic dynamics, or None to choose it.
    any_order
        Whether the order may be chosen with the dynamics.
    quantities, keep
        The user's functions of the sites of a draw, or None.
    stream
        Whether rows are streamed: True, False, or ``"auto"`` if they do not fit in memory.
    data_shards
        Number of parts of the rows, each of which is shuffled by itself and gives an equal share to
        every batch.
    devices
        The devices of the run; None for one.
    share_batches
        Whether all chains use the same batch at a time.
    """

    order: Order
    integrator: Integrator
    batch_size: int | None = None
    step_size: float | None = None
    temperature: float = 1.0
    steps_per_draw: int | None = None
    gradient: str | None = None
    coordinates: type[Coordinates] | None = None
    adapt: bool = True
    covariance: np.ndarray | None = None
    tolerance: float = 0.02
    init_strategy: Callable | None = None
    record_moments: bool = False
    start: str = "auto"
    step_schedule: Callable | None = None
    temperature_schedule: Callable | None = None
    dynamics: str = "overdamped"
    friction: float | None = None
    any_order: bool = False
    quantities: Callable | None = None
    keep: Callable | None = None
    stream: bool | str = "auto"
    data_shards: int = 1
    devices: Devices | None = None
    share_batches: bool = False

    def kinetic(self) -> "Settings":
        """Return the settings with kinetic dynamics."""
        order = ORDERS["symmetric"]() if self.any_order else self.order
        integrator = UBU(self.friction or UBU.friction)
        return replace(self, dynamics="kinetic", integrator=integrator, order=order)

    @property
    def may_go_without_mode(self) -> bool:
        """Whether the settings leave room for kinetic dynamics in coordinates without a mode."""
        kind, array = self.coordinates, self.covariance
        plain = self.gradient in (None, "plain")
        if self.dynamics == "kinetic":
            diagonal = array is None or np.ndim(array) == 1
            return plain and diagonal and (kind is None or kind.name in ("diagonal", "none"))
        # A step size or preconditioner was given for overdamped dynamics.
        free = self.step_size is None and kind is None and array is None
        return self.dynamics == "auto" and plain and free and self.order.period > 0

    @property
    def complete(self) -> bool:
        """Whether the user has given everything that would otherwise be chosen."""
        return None not in (self.batch_size, self.step_size, self.gradient)

    @property
    def kinetic_complete(self) -> bool:
        """Whether kinetic dynamics needs no walk to the posterior: all is given, starts too."""
        return self.start == "given" and None not in (
            self.batch_size,
            self.step_size,
            self.friction,
        )

    @property
    def fixed(self) -> bool:
        """Whether the user has given anything on which the predicted error depends."""
        given = (self.batch_size, self.step_size, self.gradient, self.steps_per_draw)
        return any(value is not None for value in given) or self.integrator.law != "averaged"


def make_settings(
    *,
    order: str | Order = "auto",
    dynamics: str = "auto",
    friction: float | str = "auto",
    batch_size: int | None = None,
    step_size: float | str | Callable = "auto",
    temperature: float | Callable = 1.0,
    steps_per_draw: int | str | None = None,
    gradient: str = "auto",
    preconditioner: str | np.ndarray = "auto",
    noise: str = "averaged",
    integrator: Integrator | None = None,
    tolerance: float = 0.02,
    init_strategy: Callable | None = None,
    record_moments: bool = False,
    start: str = "auto",
    quantities: Callable | None = None,
    keep: Callable | None = None,
    stream: bool | str = "auto",
    data_shards: int | None = None,
    devices: Any = None,
    mesh: Any = None,
    share_batches: bool = False,
    chains: int = 1,
) -> Settings:
    """Check the settings as users spell them, and turn names into objects.

    Raises
    ------
    ValueError, TypeError
        If an argument makes no sense; the message names it and says what it may be.
    """
    any_order = order == "auto"
    order = resolve("order", "batches" if any_order else order, ORDERS)
    if integrator is not None and noise != "averaged":
        raise ValueError(
            "`noise` is part of overdamped dynamics: leave it out beside `integrator`."
        )
    dynamics, friction = read_dynamics(dynamics, friction, noise, integrator)
    integrator = choose_integrator(noise, integrator)
    check_hashable(order=order, integrator=integrator)
    check_choice("start", start, ("auto", "mode", "given"))
    if not isinstance(stream, bool):
        check_choice("stream", stream, ("auto",))
    check_functions(quantities=quantities, keep=keep)
    check_choice("gradient", gradient, ("auto", *GRADIENTS))
    if batch_size is not None:
        batch_size = check_integer("batch_size", batch_size, 1)
    steps_per_draw = read_steps_per_draw(steps_per_draw)
    scheduled = read_schedules(step_size, temperature)
    for name, flag in (("record_moments", record_moments), ("share_batches", share_batches)):
        if not isinstance(flag, bool):
            raise TypeError(f"`{name}` must be True or False, not {flag!r}.")
    if share_batches and (devices is not None or mesh is not None):
        raise ValueError(
            "`share_batches` is for chains on one device: leave it out beside `devices` or `mesh`."
        )
    if (
        scheduled["step_size"] is None
        and integrator.law is None
        and not isinstance(integrator, UBU)
    ):
        raise ValueError(
            f"`step_size` must be given for the integrator {type(integrator).__name__}: it is "
            "chosen by itself only for overdamped Langevin dynamics."
        )
    settings = Settings(
        order=order,
        integrator=integrator,
        dynamics=dynamics,
        friction=friction,
        any_order=any_order,
        batch_size=batch_size,
        steps_per_draw=steps_per_draw,
        gradient=None if gradient == "auto" else gradient,
        tolerance=check_tolerance(tolerance),
        init_strategy=init_strategy,
        record_moments=record_moments,
        start=start,
        quantities=quantities,
        keep=keep,
        stream=stream,
        share_batches=share_batches,
        **scheduled,
        **read_devices(devices, mesh, data_shards, chains),
        **read_preconditioner(preconditioner),
    )
    return settings.kinetic() if dynamics == "kinetic" else settings
