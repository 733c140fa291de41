"""The problems of the accuracy benchmark by name; building one is cheap, running one is not."""

from sgworld_mcmc.benchmarks.accuracy.conjugate import CONJUGATE
from sgworld_mcmc.benchmarks.accuracy.hierarchies import HIERARCHIES
from sgworld_mcmc.benchmarks.accuracy.problem import Problem
from sgworld_mcmc.benchmarks.accuracy.regressions import REGRESSIONS

__all__ = ["PROBLEMS", "build"]

PROBLEMS = {**CONJUGATE, **REGRESSIONS, **HIERARCHIES}


def build(name: str) -> Problem:
    """Make the data of one problem.

    Raises
    ------
    ValueError
        For a name that there is not.

    Examples
    --------
    >>> build("beta_bernoulli").size
    40
    """
    if name not in PROBLEMS:
        raise ValueError(f"There is no model {name!r}; choose from {', '.join(PROBLEMS)}.")
    return PROBLEMS[name]()
