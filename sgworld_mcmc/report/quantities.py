"""What a run computes of every draw besides the sites: quantities, and gauges of the temperature.

Where there are thousands of parameters, convergence and bias are judged by functions of the draws:
those that the user names, or log likelihoods of some rows, the potential and small sites.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.sampling.chain import SGMCMCState
from sgworld_mcmc.setup.run_plan import RunData
from sgworld_mcmc.setup.without_mode.prior_scales import by_site

__all__ = ["SHOWN_ROWS", "checks_of", "default_quantities", "potential_energy", "quantity_names"]

# Log likelihoods of so many rows are among the quantities.
SHOWN_ROWS = 256
# They are evaluated at once for this many numbers, rows times parameters: what a row makes of the
# parameters on its way, such as the values of all units, takes memory for every one of them.
TOGETHER = 2**20
# Sites with at most this many numbers are among the quantities.
SMALL_SITE = 10
# Rows of the batch that measures the configurational temperature. It is averaged over all draws:
# more rows would make it no better, and take a good part of a draw where there are few batches.
GAUGE_ROWS = 128
# A number that, beside a chain's key, begins random numbers of its own.
GAUGE = 17


def checks_of(
    state: SGMCMCState, data: RunData, sites: dict[str, jax.Array], quantities: Callable | None
) -> dict[str, Any]:
    """Return what is computed of one draw.

    Parameters
    ----------
    sites
        The constrained sites of the draw.
    quantities
        The user's function of them, or None for :func:`default_quantities`.

    Returns
    -------
    dict
        ``quantities``, a pytree; ``potential``; and ``kinetic`` and ``configurational``, the
        temperatures of each site at this draw (docs/theory.md, K9), if the dynamics is kinetic. Of
        streamed rows the potential is an estimate from some of them, and the second temperature is
        NaN: it needs rows that the chain has not just seen, which a stream does not have.
    """
    position = state.position
    potential = _potential_of_sample(state, data)
    if quantities is None:
        made = default_quantities(position, data, sites)
    else:
        made = jax.tree.map(jnp.asarray, quantities(sites))
    found = {"quantities": made, "potential": potential}
    velocity = getattr(state.motion, "velocity", None)
    if velocity is not None:
        places = by_site(data.model)
        mean = lambda x: jnp.stack([jnp.mean(x[place]) for place in places])  # noqa: E731
        found["kinetic"] = mean(velocity**2)
        gradient = _one_gradient(state, data) if data.sample is None else jnp.nan
        found["configurational"] = mean(-position * gradient)
    return found


def default_quantities(
    position: jax.Array, data: RunData, sites: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Return log likelihoods of up to :data:`SHOWN_ROWS` rows, and the sites of few numbers."""
    rows = _first_rows(data, min(SHOWN_ROWS, data.model.size))
    flat = data.tuning.coordinates.to_model(position)
    single = jax.tree.map(lambda x: x[:, None], rows)
    likelihood = lambda row: data.model.log_likelihood(flat, row, data.constants)  # noqa: E731
    small = {name: x for name, x in sites.items() if jnp.size(x) <= SMALL_SITE}
    together = max(1, TOGETHER // data.model.dimension)
    if together >= len(jax.tree.leaves(single)[0]):
        return {"log_likelihood": jax.vmap(likelihood)(single), **small}
    return {"log_likelihood": jax.lax.map(likelihood, single, batch_size=together), **small}


def quantity_names(quantities: Any) -> list[str]:
    """Return a name for each number of the quantities of one draw, in the order of raveling."""
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(quantities):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "quantity"
        for index in np.ndindex(*np.shape(leaf)):
            names.append(name + (f"[{','.join(map(str, index))}]" if index else ""))
    return names


def potential_energy(state: SGMCMCState, data: RunData) -> jax.Array:
    """Return minus the log density of all rows at a chain's position, as NumPyro's HMC does.

    It costs a pass over all rows for every draw.
    """
    target = target_of(data.model, data.constants, data.tuning.coordinates)
    return -epoch_mean(target, state.position, data.feed, dealing=state.dealing)


def _potential_of_sample(state: SGMCMCState, data: RunData) -> jax.Array:
    """Return the potential of all rows, or what some of those that are streamed say of it."""
    if data.sample is None:
        return potential_energy(state, data)
    target = target_of(data.model, data.constants, data.tuning.coordinates)
    return -epoch_mean(target, state.position, data.sample)


def _first_rows(data: RunData, number: int) -> tuple:
    """Return the first rows of the batches, which are random ones and always the same."""
    if data.sample is not None:
        return data.sample.first_rows(number)
    if isinstance(data.feed, DealtRows):
        return jax.tree.map(lambda x: x[:number], data.feed.data)
    return data.feed.first_rows(number)


def _one_gradient(state: SGMCMCState, data: RunData) -> jax.Array:
    """Return the gradient estimated from rows that do not depend on the position."""
    dynamics, feed = data.dynamics, data.feed
    # Each call of a random function takes long to compile: one call makes both numbers.
    numbers = jax.random.bits(jax.random.fold_in(state.rng_key, GAUGE), (2,), jnp.uint32)
    index = (numbers[0] % dynamics.num_batches).astype(jnp.int32)
    target = target_of(data.model, data.constants, data.tuning.coordinates)
    batch = feed.fetch(state.dealing, index)
    ours = feed.shards // feed.parts
    length, some = jax.tree.leaves(batch.main)[0].shape[0] // ours, GAUGE_ROWS // feed.shards
    if batch.extra is None and length > max(some, 1):
        # Rows in a row from a random one on, round the end: each is as likely as all others.
        taken = ((numbers[1] % length).astype(jnp.int32) + np.arange(max(some, 1))) % length
        taken = (np.arange(ours)[:, None] * length + taken).ravel()
        batch = batch._replace(main=jax.tree.map(lambda x: x[taken], batch.main))
    return dynamics.gradient(target, data.tuning.controls, feed, state.position, batch, index)
