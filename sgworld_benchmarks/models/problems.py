"""The models of the suite by name; building one is cheap, running one is not."""

from sgworld_benchmarks.accuracy.problem import Problem
from sgworld_benchmarks.accuracy.suite import named
from sgworld_benchmarks.models.counts_and_times import COUNTS_AND_TIMES
from sgworld_benchmarks.models.gaussian_processes import GAUSSIAN_PROCESSES
from sgworld_benchmarks.models.hierarchies import HIERARCHIES
from sgworld_benchmarks.models.latents import LATENTS
from sgworld_benchmarks.models.mixtures import MIXTURES
from sgworld_benchmarks.models.regressions import REGRESSIONS
from sgworld_benchmarks.models.time_series import TIME_SERIES
from sgworld_benchmarks.models.unusual import UNUSUAL
from sgworld_benchmarks.models.without_mode import WITHOUT_MODE

__all__ = ["MODELS", "build"]

FAMILIES = (
    REGRESSIONS,
    COUNTS_AND_TIMES,
    HIERARCHIES,
    MIXTURES,
    TIME_SERIES,
    GAUSSIAN_PROCESSES,
    LATENTS,
    UNUSUAL,
    WITHOUT_MODE,
)
MODELS = {name: builder for family in FAMILIES for name, builder in family.items()}


def build(name: str) -> Problem:
    """Make the data of one model.

    Raises
    ------
    ValueError
        If there is no model of this name.

    Examples
    --------
    >>> build("bioassay").size
    4
    """
    return named(MODELS, (name,))[name]()
