"""What users may write for single settings: it is checked, and turned into what settings hold."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sgworld_mcmc.checks import check_choice, check_integer, check_positive
from sgworld_mcmc.devices import resolve_devices
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.members import COORDINATES

__all__ = [
    "check_functions",
    "check_hashable",
    "read_devices",
    "read_dynamics",
    "read_preconditioner",
    "read_schedules",
    "read_steps_per_draw",
]

# A step after which no schedule changes.
LAST = 2**30


def check_hashable(**objects: Any) -> None:
    """Raise unless objects, by the names of their settings, are hashable."""
    for name, value in objects.items():
        try:
            hash(value)
        except TypeError as error:
            raise TypeError(
                f"`{name}` must be hashable, a frozen dataclass of Python numbers and strings: "
                "compiled programs are found again by it."
            ) from error


def check_functions(**functions: Any) -> None:
    """Raise unless settings that stand for functions of the sites are functions, or None."""
    for name, value in functions.items():
        if not (value is None or callable(value)):
            raise TypeError(
                f"`{name}` must be a function of the sites of one draw, a dict of arrays by name, "
                f"not {value!r}."
            )


def read_steps_per_draw(value: int | str | None) -> int | None:
    """Return the number of steps between draws, None to choose it, as users spell it."""
    if isinstance(value, str):
        check_choice("steps_per_draw", value, ("auto",))
        return None
    return None if value is None else check_integer("steps_per_draw", value, 1)


def read_schedules(
    step_size: float | str | Callable, temperature: float | Callable
) -> dict[str, Any]:
    """Return four settings: step size and temperature, and their schedules if there are any."""
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
    return {
        "step_size": step_size,
        "temperature": check_positive("temperature", temperature, zero=True),
        "step_schedule": step_schedule,
        "temperature_schedule": temperature_schedule,
    }


def read_devices(devices: Any, mesh: Any, shards: int | None, chains: int) -> dict[str, Any]:
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


def read_dynamics(
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


def read_preconditioner(value: Any) -> dict[str, Any]:
    """Return the three settings that the public ``preconditioner`` stands for."""
    if value is None:
        raise ValueError("`preconditioner` must be a name or an array, not None. Leave it out.")
    if not isinstance(value, str):
        kind = COORDINATES["dense" if np.ndim(value) == 2 else "diagonal"]
        return {"coordinates": kind, "adapt": False, "covariance": value}
    check_choice("preconditioner", value, ("auto", *sorted(COORDINATES)))
    kind = COORDINATES.get(value)
    return {"coordinates": kind, "adapt": value in ("auto", "dense")}


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
