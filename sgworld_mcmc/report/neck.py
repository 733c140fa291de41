"""Look for a neck of the posterior that the steps of a run are too large to enter.

Where a scale is small, its latents are confined, and the curvature is large. A chain that comes
near is thrown out again, as steps of size h are not stable where the curvature exceeds 2 / h. The
draws then lack what lies beyond, and the chains agree with each other.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.report.draws import Draws
from sgworld_mcmc.setup.run_plan import RunData, RunPlan

__all__ = ["neck_note"]

# So many draws are looked at, with so many products with the Hessian at each.
DRAWS, PRODUCTS = 256, 20
# More of the draws than this beyond what is stable are no chance.
MOST = 0.01


def neck_note(plan: RunPlan, data: RunData, draws: Draws) -> list[str]:
    """Return a note if many draws lie where the step size is not stable.

    It is looked for where no mode was found and the coordinates come from mean curvatures, which
    a neck does not show.
    """
    fit = plan.fit
    here = isinstance(data.feed, FixedPartition) and data.whole is None and data.layout is None
    if not (fit.fitted and fit.by_curvature and here):
        return []
    positions = draws.positions.reshape(-1, fit.dimension)
    some = positions[np.linspace(0, len(positions) - 1, DRAWS).astype(int)]
    tuning = data.tuning
    with jax.enable_x64(plan.double):
        # A lambda: JAX would keep a model that is a static argument for good.
        largest = quick_jit(lambda *given: _largest_curvatures(data.model, *given))(
            from_numpy(some, float_dtype()), tuning.coordinates, data.feed, data.constants
        )
    beyond = float(np.mean(np.asarray(largest) * draws.step_size > 2))
    if beyond <= MOST:
        return []
    return [
        f"At {beyond:.0%} of the draws the posterior is too steep for the step size "
        f"{draws.step_size:.2g}: it has a neck (a scale near zero, whose latents are confined), "
        "from which the chains are thrown out, and what lies beyond is missing. Use a non-centred "
        "parametrisation (LocScaleReparam), or NUTS."
    ]


def _largest_curvatures(model, positions, coordinates, feed, constants):
    """Return the (S,) largest curvatures of the potential, by the power method."""
    target = target_of(model, constants, coordinates)

    def slope(z):
        return epoch_mean(jax.grad(target), z, feed)

    def at(z):
        def turn(vector, _):
            product = jax.jvp(slope, (z,), (vector,))[1]
            length = jnp.linalg.norm(product)
            return product / length, length

        start = jnp.full_like(z, z.size**-0.5)
        return jax.lax.scan(turn, start, length=PRODUCTS)[1][-1]

    return jax.lax.map(at, positions)
