"""The problems of the accuracy benchmark by name; building one is cheap, running one is not."""

from sgworld_benchmarks.accuracy.conjugate import CONJUGATE
from sgworld_benchmarks.accuracy.hierarchies import HIERARCHIES
from sgworld_benchmarks.accuracy.problem import Problem
from sgworld_benchmarks.accuracy.regressions import REGRESSIONS
from sgworld_benchmarks.accuracy.suite import named

__all__ = ["PROBLEMS", "build"]

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
    return named(PROBLEMS, (name,))[name]()
