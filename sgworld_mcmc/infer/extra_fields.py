"""The fields that a run can collect beside the draws."""

import difflib
from typing import Any

from sgworld_mcmc.sampling.chain import SGMCMCState

__all__ = ["CHECKS", "check_extra_fields"]

COMPUTED = ("potential_energy",)
# The field of :mod:`sgworld_mcmc.report.quantities`, which is not shown.
CHECKS = "_checks"


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
