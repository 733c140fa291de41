"""What the choice of settings is given: data, sampler, and what the user has fixed."""

from dataclasses import dataclass

from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.data.dealing import is_shared
from sgworld_mcmc.members import GRADIENTS
from sgworld_mcmc.protocols import Integrator, Order
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.batch_noise import FOR_EACH, batch_ladder
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit

__all__ = ["Request", "request_of"]

BATCH_SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
# The cost of a step beyond its rows, in rows of gradient: even the smallest batch pays for random
# numbers, products with the preconditioner and the loop itself.
OVERHEAD = 10.0
# Products with a dense preconditioner of D x D numbers cost as much as this times D^2 rows: 300 at
# D = 200 and 1200 at D = 500, measured on two cores.
ROWS_OF_PRODUCT = 1 / 200


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is given to the choice: size of the data, kind of sampler, and what the user has fixed.

    Attributes
    ----------
    size
        Number of rows N.
    order, integrator
        The order of the batches and the integrator, as objects.
    tolerance
        Relative error of the posterior variance that is allowed.
    batch_size, step_size, steps_per_draw
        A number, or None to choose; the step size is in the whitened coordinates of the sampler.
    gradients
        The names of the kinds of gradient to choose from.
    stiffest, softest
        Largest and smallest curvature in the sampler's coordinates: both 1 if the preconditioner
        is the inverse Hessian.
    batch_sizes
        The sizes of batches to choose from, beside that of all rows.
    overhead
        The cost of a step beyond its rows, in rows of gradient.
    largest
        The largest size of a batch, if not all rows can be one: those of streamed rows.
    shards, numbers
        Number of devices that may share a batch, and how many numbers a row has.
    """

    size: int
    order: Order
    integrator: Integrator
    tolerance: float
    batch_size: int | None
    step_size: float | None
    steps_per_draw: int | None
    gradients: tuple[str, ...]
    stiffest: float
    softest: float
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    overhead: float = OVERHEAD
    largest: int | None = None
    shards: int = 1
    numbers: int = 0

    def shards_of(self, batch_size: int) -> int:
        """Return how many devices share a batch of this size."""
        return self.shards if is_shared(batch_size, self.numbers, self.shards) else 1


def request_of(
    settings: Settings, size: int, fit: CoordinateFit, *, numbers: int = 0, taken: int = 0
) -> Request:
    """Return the request for the settings, data of ``size`` rows and these coordinates.

    ``numbers`` is how many a row has, if devices may share batches; so many more rows are
    ``taken`` in every batch.
    """
    kinds = sorted(GRADIENTS, key=lambda name: GRADIENTS[name].needs)
    # Around a mean Hessian, Taylor control variates are those of batches that stay the same.
    anew = fit.mean and settings.order.redeals
    if not fit.curved or anew:
        kinds = [name for name in kinds if GRADIENTS[name].needs < 2]
    if anew and settings.gradient not in (None, *kinds):
        raise ValueError(
            f"`gradient={settings.gradient!r}` is not there for few rows in each of many groups if "
            f"`order={settings.order.name!r}` deals batches anew in every epoch. Use "
            f"`order='batches'`, or leave `gradient` to the package."
        )
    stiffest, softest = fit.extremes()
    numbers_of_matrix = fit.dimension**2 if isinstance(fit.coordinates, Dense) else 0
    costs = {"overhead": taken + max(OVERHEAD, ROWS_OF_PRODUCT * numbers_of_matrix)}
    if fit.unit:
        sizes = batch_ladder(size, fit.dimension)
        overhead = taken + OVERHEAD + FOR_EACH * fit.dimension
        costs = {"batch_sizes": sizes, "overhead": overhead}
    return Request(
        size=size,
        order=settings.order,
        integrator=settings.integrator,
        tolerance=settings.tolerance,
        batch_size=settings.batch_size,
        step_size=settings.step_size,
        steps_per_draw=settings.steps_per_draw,
        gradients=tuple(kinds) if settings.gradient is None else (settings.gradient,),
        stiffest=stiffest,
        softest=softest,
        shards=1 if settings.order.redeals or fit.unit else settings.data_shards,
        numbers=numbers,
        **costs,
    )
