"""The problems of the accuracy benchmark by name; building one is cheap, running one is not."""

from sgworld_benchmarks.accuracy.conjugate import CONJUGATE
from sgworld_benchmarks.accuracy.hierarchies import HIERARCHIES
from sgworld_benchmarks.accuracy.problem import Problem
from sgworld_benchmarks.accuracy.regressions import REGRESSIONS

__all__ = ["PROBLEMS", "build", "chosen"]

PROBLEMS = {**CONJUGATE, **REGRESSIONS, **HIERARCHIES}


def build(name: str) -> Problem:
    """Make the data of one problem.

    Raises
    ------
    ValueError
        If there is no problem of this name.

    Examples
    --------
    >>> build("beta_bernoulli").size
    40
    """
    return chosen((name,))[name]()


def chosen(names=()) -> dict:
    """Return the builders of the problems with these names, or of all if no name is given.

    Raises
    ------
    ValueError
        If there is no problem of a given name; no data are made then.
    """
    for name in names:
        if name not in PROBLEMS:
            raise ValueError(f"There is no model {name!r}; choose from {', '.join(PROBLEMS)}.")
    return {name: PROBLEMS[name] for name in names or PROBLEMS}
