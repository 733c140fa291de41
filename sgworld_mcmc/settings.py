"""The settings of a sampler, and the one place where their public spellings become objects.

Every string that a user may give is looked up here and nowhere else. A new order, gradient,
integrator or kind of coordinates is found by itself once its file lies in its folder.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from sgworld_mcmc import coordinates, data, gradients, integrators
from sgworld_mcmc.checks import check_choice, check_integer, check_positive
from sgworld_mcmc.data import orders
from sgworld_mcmc.devices import Devices, resolve_devices
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.protocols import Coordinates, Feed, Gradient, Integrator, Order

__all__ = [
    "COORDINATES",
    "FEEDS",
    "GRADIENTS",
    "INTEGRATORS",
    "ORDERS",
    "WITHOUT_REPLACEMENT",
    "Settings",
    "choose_integrator",
    "make_settings",
    "members",
    "resolve",
]


def members(package: ModuleType, protocol: type) -> dict[str, type]:
    """Find the members of a protocol in the modules of a package, by their ``name``.

    Examples
    --------
    >>> from sgworld_mcmc import gradients
    >>> sorted(members(gradients, Gradient))
    ['control_variate', 'plain', 'taylor']
    """
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, protocol) and not inspect.isabstract(value):
                found[value.name] = value
    return found


ORDERS = members(orders, Order)
GRADIENTS = members(gradients, Gradient)
INTEGRATORS = members(integrators, Integrator)
COORDINATES = members(coordinates, Coordinates)
FEEDS = members(data, Feed)
WITHOUT_REPLACEMENT = tuple(name for name, order in ORDERS.items() if order.period)
# The two noises of overdamped Langevin dynamics, from which the setting `noise` chooses.
NOISES = tuple(name for name, kind in INTEGRATORS.items() if kind.law is not None)


def resolve(name: str, value: Any, table: dict[str, type], choices: tuple[str, ...] = ()) -> Any:
    """Return the object that a public spelling stands for; an object stands for itself.

    Parameters
    ----------
    name
        Name of the argument, for the error message.
    value
        One of ``choices``, or an instance of one of the protocols.
    table
        Classes by name.
    choices
        The names that are allowed; by default all names of the table.

    Raises
    ------
    ValueError
        If the value is neither; the message suggests the closest name.
    """
    protocols = {base for kind in table.values() for base in kind.__mro__ if base in _PROTOCOLS}
    if isinstance(value, tuple(protocols)):
        return value
    check_choice(name, value, choices or tuple(table))
    return table[value]()


def choose_integrator(noise: str, integrator: Integrator | None = None) -> Integrator:
    """Return the given integrator, or that of overdamped dynamics with this kind of noise."""
    if integrator is None:
        return resolve("noise", noise, INTEGRATORS, NOISES)
    if not isinstance(integrator, Integrator):
        raise TypeError(
            f"`integrator` must be an object of sgworld_mcmc.protocols.Integrator, not "
            f"{integrator!r}."
        )
    return integrator


# A step after which no schedule changes.
LAST = 2**30
_PROTOCOLS = (Order, Gradient, Integrator, Coordinates)


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
    dynamics, friction = _dynamics(dynamics, friction, noise, integrator)
    integrator = choose_integrator(noise, integrator)
    for name, value in (("order", order), ("integrator", integrator)):
        try:
            hash(value)
        except TypeError as error:
            raise TypeError(
                f"`{name}` must be hashable, a frozen dataclass of Python numbers and strings: "
                "compiled programs are found again by it."
            ) from error
    check_choice("start", start, ("auto", "mode", "given"))
    if not isinstance(stream, bool):
        check_choice("stream", stream, ("auto",))
    for name, value in (("quantities", quantities), ("keep", keep)):
        if not (value is None or callable(value)):
            raise TypeError(
                f"`{name}` must be a function of the sites of one draw, a dict of arrays by name, "
                f"not {value!r}."
            )
    check_choice("gradient", gradient, ("auto", *GRADIENTS))
    if batch_size is not None:
        batch_size = check_integer("batch_size", batch_size, 1)
    if isinstance(steps_per_draw, str):
        check_choice("steps_per_draw", steps_per_draw, ("auto",))
        steps_per_draw = None
    elif steps_per_draw is not None:
        steps_per_draw = check_integer("steps_per_draw", steps_per_draw, 1)
    step_schedule = step_size if callable(step_size) else None
    temperature_schedule = temperature if callable(temperature) else None
    if step_schedule is not None:
        step_size = _value_of("step_size", step_schedule, 0)
    if temperature_schedule is not None:
        temperature = _value_of("temperature", temperature_schedule, LAST)
    if isinstance(step_size, str):
        check_choice("step_size", step_size, ("auto",))
        step_size = None
    else:
        step_size = check_positive("step_size", step_size)
    if not isinstance(record_moments, bool):
        raise TypeError(f"`record_moments` must be True or False, not {record_moments!r}.")
    if step_size is None and integrator.law is None and not isinstance(integrator, UBU):
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
        step_size=step_size,
        temperature=check_positive("temperature", temperature, zero=True),
        steps_per_draw=steps_per_draw,
        gradient=None if gradient == "auto" else gradient,
        tolerance=check_positive("tolerance", tolerance),
        init_strategy=init_strategy,
        record_moments=record_moments,
        start=start,
        quantities=quantities,
        keep=keep,
        stream=stream,
        **_devices(devices, mesh, data_shards, chains),
        step_schedule=step_schedule,
        temperature_schedule=temperature_schedule,
        **_preconditioner(preconditioner),
    )
    return settings.kinetic() if dynamics == "kinetic" else settings


def _devices(devices: Any, mesh: Any, shards: int | None, chains: int) -> dict[str, Any]:
    """Return the two settings that say where chains and rows lie, as users spell them."""
    found = resolve_devices(devices, mesh, chains)
    if shards is not None:
        shards = check_integer("data_shards", shards, 1)
    elif found is not None:
        shards = found.shards
    needed = found is not None and (found.shape is not None or found.hosts > 1)
    if needed and shards % found.shards:
        raise ValueError(
            f"`data_shards` {shards} is no multiple of the {found.shards} devices over which the "
            "rows lie: leave it out, or take a multiple."
        )
    return {"devices": found, "data_shards": shards or 1}


def _dynamics(
    dynamics: str, friction: Any, noise: str, integrator: Any
) -> tuple[str, float | None]:
    """Return the dynamics and the friction, None to choose it, as users spell them."""
    check_choice("dynamics", dynamics, ("auto", "overdamped", "kinetic"))
    if isinstance(friction, str):
        check_choice("friction", friction, ("auto",))
        friction = None
    else:
        friction = check_positive("friction", friction)
    if isinstance(integrator, UBU):
        if dynamics == "overdamped" or friction not in (None, integrator.friction):
            raise ValueError(
                "`integrator` UBU is kinetic dynamics with a friction of its own: leave out "
                "`dynamics` and `friction`."
            )
        return "kinetic", integrator.friction
    if integrator is not None or noise != "averaged":
        if dynamics == "kinetic" or friction is not None:
            raise ValueError(
                "`noise` and `integrator` are other dynamics than `dynamics='kinetic'`, to which "
                "`friction` belongs: leave one of them out."
            )
        return "overdamped", None
    if dynamics == "overdamped" and friction is not None:
        raise ValueError("`friction` belongs to `dynamics='kinetic'`: leave it out.")
    return ("kinetic" if friction is not None else dynamics), friction


def _value_of(name: str, schedule: Callable, step: int) -> float:
    """Return the value of a schedule at a step; raise unless it is a number."""
    try:
        return float(schedule(np.int32(step)))
    except Exception as error:
        raise TypeError(
            f"`{name}` must be a number or a schedule, a function of the minibatch step that "
            f"returns a number, as in optax. At step {step} it raised {type(error).__name__}: "
            f"{error}"
        ) from error


def _preconditioner(value: Any) -> dict[str, Any]:
    """Return the three settings that the public ``preconditioner`` stands for."""
    if value is None:
        raise ValueError("`preconditioner` must be a name or an array, not None. Leave it out.")
    if not isinstance(value, str):
        kind = COORDINATES["dense" if np.ndim(value) == 2 else "diagonal"]
        return {"coordinates": kind, "adapt": False, "covariance": value}
    check_choice("preconditioner", value, ("auto", *sorted(COORDINATES)))
    kind = COORDINATES.get(value)
    return {"coordinates": kind, "adapt": value in ("auto", "dense")}
