"""The samplers that are calibrated, each as a generator of the draws of one data set after another.

SGWORLD and SGLD are run as a user runs them, with the whole set-up for each data set. One object
serves all of them: compiled programs take data, coordinates, control variates and step size as
arguments, so that only the first data sets wait for a compilation.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS

from sgworld_benchmarks.accuracy.run import package_warnings
from sgworld_benchmarks.calibration.models import Calibrated
from sgworld_benchmarks.calibration.ranks import Ranks
from sgworld_mcmc import SGLD, SGWORLD

__all__ = ["SAMPLERS", "Draws", "run_nuts", "run_sgld", "run_sgworld"]

# NUTS makes this many transitions of the warm-up, and this many draws.
WARMUP, DRAWS = 500, 990
# SGLD's batches are this part of the rows, or those of SGWORLD if these are smaller.
PART = 10
# NUTS runs on so many data sets in one call of its program.
CHUNK = 50


class Draws(NamedTuple):
    """The draws of one data set.

    Attributes
    ----------
    sites
        Draws by latent site, (draws, ...), all chains one after the other.
    warned
        Whether the package gave a warning.
    step_size, batch_size
        The settings; zeros for NUTS.
    """

    sites: dict[str, np.ndarray]
    warned: bool = False
    step_size: float = 0.0
    batch_size: int = 0


def run_sgworld(problem: Calibrated, data: np.ndarray, key: jax.Array, _=None) -> Iterator[Draws]:
    """Run ``SGWORLD(model)``, no setting given."""
    mcmc = SGWORLD(problem.model, progress_bar=False)
    for number, y in enumerate(data):
        with package_warnings() as messages:
            mcmc.run(jax.random.fold_in(key, number), *problem.inputs, y)
        yield _draws_of(mcmc, messages)


def run_sgld(
    problem: Calibrated, data: np.ndarray, key: jax.Array, chosen: Ranks
) -> Iterator[Draws]:
    """Run SGLD as it is written: plain gradients of batches that are drawn with replacement.

    It has SGWORLD's coordinates, and the step size that SGWORLD has chosen for the same data set.
    """
    size = int(min(len(data[0]) // PART, chosen.batch_size.min()))
    steps = chosen.step_size
    mcmc = SGLD(
        problem.model,
        gradient="plain",
        batch_size=size,
        step_size=float(steps[0]),
        preconditioner="dense",
        progress_bar=False,
    )
    for number, y in enumerate(data):
        own = jax.random.fold_in(key, number)
        with package_warnings() as messages:
            plan = mcmc.set_up(own, *problem.inputs, y)
            step = jnp.asarray(steps[number], plan.tuning.step_size.dtype)
            plan = replace(plan, tuning=plan.tuning._replace(step_size=step))
            mcmc.use(plan, replace(mcmc.data, tuning=plan.tuning))
            mcmc.run(own, *problem.inputs, y)
        yield _draws_of(mcmc, messages)


def run_nuts(problem: Calibrated, data: np.ndarray, key: jax.Array, _=None) -> Iterator[Draws]:
    """Run one chain of NumPyro's NUTS on each data set, many of them in one compiled call."""

    def one(inputs):
        key, y = inputs
        kernel = NUTS(problem.model)
        args = (*problem.inputs, y)
        state = kernel.init(key, WARMUP, None, args, {})
        step = lambda _, state: kernel.sample(state, args, {})  # noqa: E731
        state = jax.lax.fori_loop(0, WARMUP, step, state)
        _, z = jax.lax.scan(lambda s, _: ((t := step(0, s)), t.z), state, length=DRAWS)
        return jax.vmap(kernel.postprocess_fn(args, {}))(z)

    program = jax.jit(lambda keys, y: jax.lax.map(one, (keys, y)))
    for first in range(0, len(data), CHUNK):
        numbers = np.minimum(np.arange(first, first + CHUNK), len(data) - 1)
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        found = jax.tree.map(np.asarray, program(keys, data[numbers]))
        for place in range(min(CHUNK, len(data) - first)):
            yield Draws({name: x[place] for name, x in found.items()})


def _draws_of(mcmc: SGWORLD | SGLD, messages: list[str]) -> Draws:
    plan = mcmc.plan
    sites = {name: np.asarray(x) for name, x in mcmc.get_samples().items()}
    return Draws(sites, bool(messages), plan.step_size, plan.batch_size)


SAMPLERS: dict[str, Callable] = {"sgworld": run_sgworld, "sgld": run_sgld, "nuts": run_nuts}
