"""The fields that a run can collect beside the draws."""

import difflib
from typing import Any

import jax

from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.sampling.chain import SGMCMCState
from sgworld_mcmc.setup.run_plan import RunData

__all__ = ["check_extra_fields", "potential_energy"]

COMPUTED = ("potential_energy",)


def check_extra_fields(fields: Any) -> None:
    """Raise unless these are names of fields, before the set-up begins.

    Raises
    ------
    TypeError, ValueError
        If ``extra_fields`` is no list or tuple of names, or there is no such field; the message
        suggests the closest one.
    """
    if not isinstance(fields, list | tuple) or not all(isinstance(name, str) for name in fields):
        raise TypeError(
            f"`extra_fields` must be a list or tuple of names, as ('step_size',), not {fields!r}."
        )
    known = [*SGMCMCState._fields, *COMPUTED]
    for name in fields:
        first = name.removeprefix("~").split(".")[0]
        if first not in known:
            close = difflib.get_close_matches(first, known, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"There is no field {name!r} to collect as `extra_fields`: there are "
                f"{', '.join(known)}.{hint}"
            )


def potential_energy(state: SGMCMCState, data: RunData) -> jax.Array:
    """Return minus the log density of all rows at a chain's position, as NumPyro's HMC does.

    It costs a pass over all rows for every draw.
    """
    target = target_of(data.model, data.constants, data.tuning.coordinates)
    return -epoch_mean(target, state.position, data.feed, dealing=state.dealing)
