"""The members of the five ideas by name, and the objects that public spellings stand for.

A new order, gradient, integrator or kind of coordinates is found by itself once its file lies in
its folder.
"""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

from sgworld_mcmc import coordinates, data, gradients, integrators
from sgworld_mcmc.checks import check_choice
from sgworld_mcmc.data import orders
from sgworld_mcmc.protocols import Coordinates, Feed, Gradient, Integrator, Order

__all__ = [
    "COORDINATES",
    "FEEDS",
    "GRADIENTS",
    "INTEGRATORS",
    "NOISES",
    "ORDERS",
    "WITHOUT_REPLACEMENT",
    "choose_integrator",
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
_PROTOCOLS = (Order, Gradient, Integrator, Coordinates)


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
