"""Errors of a network's predictions against epochs, with and without replacement.

Five samplers run on the digits for the same epochs from the same starts, with batches of the same
fixed partition, in the prior's coordinates, in which every weight has the standard deviation one.
A kinetic step has the given size h, an overdamped one h^2 / 2, which is as far from its limit of
stability. The defaults are about what SGWORLD(model) chooses for this network; nothing is tuned for
the others. A budget of E epochs predicts from the draws of its second half.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.handlers import substitute, trace

from sgworld_benchmarks.networks.problems import Network
from sgworld_benchmarks.networks.references import Reference
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.diagnostics.predictive import total_variation
from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.kernels import sgworld
from sgworld_mcmc.protocols import Integrator

__all__ = ["BUDGETS", "SCHEMES", "EpochTable", "Scheme", "run"]

BUDGETS = (50, 100, 200, 400, 800, 1600)


class Scheme(NamedTuple):
    """A sampler of the comparison: its name, the order of its batches, and its dynamics."""

    name: str
    order: str
    kinetic: bool


SCHEMES = (
    Scheme("SGLD", "replacement", False),
    Scheme("SGWORLD", "batches", False),
    Scheme("UBU with replacement", "replacement", True),
    Scheme("UBU, fresh orders", "batches", True),
    Scheme("UBU, symmetric", "symmetric", True),
)


class EpochTable(NamedTuple):
    """Errors by scheme and budget.

    Attributes
    ----------
    budgets
        (E,) epochs of each chain.
    tv, excess
        (schemes, E) total variation to the reference, and mean energy above that of the reference
        in units of D / 2. NaN where chains have diverged.
    floor
        Total variation that the reference's own Monte Carlo error is expected to make.
    step_size, friction, batch_size, chains
        The settings.
    """

    budgets: tuple[int, ...]
    tv: np.ndarray
    excess: np.ndarray
    floor: float
    step_size: float
    friction: float
    batch_size: int
    chains: int

    def text(self) -> str:
        """Return both tables, and by how much replacement makes the kinetic sampler worse."""
        lines = [
            f"{self.chains} chains, batches of {self.batch_size}, step size {self.step_size:g} "
            f"(overdamped {self.step_size**2 / 2:g}), friction {self.friction:g}"
        ]
        head = f"{'epochs':24}" + "".join(f"{budget:>9}" for budget in self.budgets)
        for title, values, form in (
            (f"Total variation (the reference's own error is {self.floor:.4f})", self.tv, "9.4f"),
            ("Energy above the reference's, in D/2", self.excess, "+9.3f"),
        ):
            lines += ["", title, head]
            for scheme, row in zip(SCHEMES, values, strict=True):
                lines.append(f"{scheme.name:24}" + "".join(format(v, form) for v in row))
        lines += ["", "UBU with replacement: times what the symmetric order has", head]
        for title, values in (("total variation", self.tv), ("energy", self.excess)):
            lines.append(f"{title:24}" + "".join(f"{r:9.2f}" for r in values[2] / values[4]))
        return "\n".join(lines)


def run(
    network: Network,
    reference: Reference,
    rng_key: jax.Array,
    *,
    budgets: Sequence[int] = BUDGETS,
    step_size: float = 0.013,
    friction: float = 1.0,
    batch_size: int = 200,
    chains: int = 4,
) -> EpochTable:
    """Run all schemes on a network whose parameters have the prior Normal(0, 1).

    Parameters
    ----------
    budgets
        Increasing even numbers of epochs, each at least twice the one before it.
    step_size, friction, batch_size, chains
        Settings of all schemes.
    """
    budgets = tuple(budgets)
    doubling = all(b >= 2 * a for a, b in itertools.pairwise(budgets))
    if not budgets or any(b < 4 or b % 2 for b in budgets) or not doubling:
        raise ValueError(
            f"`budgets` must be even numbers of at least 4, each at least twice the one before it, "
            f"not {budgets}."
        )
    run_key, start_key = jax.random.split(rng_key)
    starts = jax.vmap(lambda key: _prior_draw(network, key))(jax.random.split(start_key, chains))
    dimension = sum(int(np.prod(x.shape[1:])) for x in starts.values())
    tv, excess = [], []
    for scheme, key in zip(SCHEMES, jax.random.split(run_key, len(SCHEMES)), strict=True):
        integrator = UBU(friction) if scheme.kinetic else Averaged()
        h = step_size if scheme.kinetic else step_size**2 / 2
        runs = _Chains(network, scheme.order, integrator, h, batch_size)
        found = list(runs.halves(key, starts, budgets))
        tv.append([total_variation(p, reference.mean) for p, _ in found])
        excess.append([(u - reference.energy) / (dimension / 2) for _, u in found])
    own = np.sqrt(2 / np.pi) * reference.se.sum(-1).mean() / 2
    settings = (step_size, friction, batch_size, chains)
    return EpochTable(budgets, np.array(tv), np.array(excess), float(own), *settings)


class _Chains:
    """Chains of one scheme, side by side, which advance by two epochs from draw to draw."""

    def __init__(
        self, network: Network, order: str, integrator: Integrator, step_size: float, rows: int
    ) -> None:
        self.network, self.order, self.integrator = network, order, integrator
        self.step_size = step_size
        data = jnp.asarray(network.x), jnp.asarray(network.y)
        self.feed = FixedPartition.deal(jax.random.key(0), data, rows)
        self.kernel = sgworld.build_kernel(order, integrator=integrator)
        self.advance = jax.jit(self._advance)

    def halves(self, rng_key, starts, budgets):
        """Yield predictive probabilities and mean energy over the second half of each budget."""
        init_key, rng_key = jax.random.split(rng_key)
        chains = len(jax.tree.leaves(starts)[0])
        count = self.feed.num_batches
        states = jax.vmap(
            lambda key, x: sgworld.init(x, key, count, order=self.order, integrator=self.integrator)
        )(jax.random.split(init_key, chains), starts)
        done = 0
        for budget in budgets:
            # Draws are made every two epochs: `done` counts them.
            for upto, wanted in ((budget // 4, False), (budget // 2, True)):
                rng_key, own = jax.random.split(rng_key)
                if upto > done:
                    states, (p, u) = self.advance(own, states, self.feed, pairs=upto - done)
                    done = upto
                if wanted:
                    yield np.asarray(p, float), float(u)

    def _advance(self, rng_key, states, feed, pairs):
        """Return the chains after ``pairs`` times two epochs, and means over these draws."""
        test_x = jnp.asarray(self.network.test_x)

        def one(key, state):
            for own in jax.random.split(key):
                state, _ = self.kernel(own, state, self._gradient, feed, self.step_size)
            return state

        def step(index, carry):
            states, totals = carry
            keys = jax.random.split(jax.random.fold_in(rng_key, index), chains)
            states = jax.vmap(one)(keys, states)
            new = jax.vmap(lambda x: (self.network.predict(x, test_x), self.network.energy(x)))(
                states.position
            )
            return states, jax.tree.map(lambda t, x: t + x.mean(0) / pairs, totals, new)

        chains, first = len(states.step), jax.tree.map(lambda x: x[0], states.position)
        classes = jax.eval_shape(self.network.predict, first, test_x)
        totals = jnp.zeros(classes.shape, classes.dtype), jnp.zeros(())
        # The number of draws is traced, so that all budgets share one program.
        return jax.lax.fori_loop(0, pairs, step, (states, totals))

    def _gradient(self, position, rows):
        size = len(self.network.y)

        def log_density(position):
            model = substitute(self.network.model, position)
            sites = trace(model).get_trace(*rows).values()
            sites = [site for site in sites if site["type"] == "sample"]
            prior = sum(s["fn"].log_prob(s["value"]).sum() for s in sites if not s["is_observed"])
            rows_terms = sum(s["fn"].log_prob(s["value"]) for s in sites if s["is_observed"])
            return prior + size * rows_terms.mean()

        return jax.grad(log_density)(position)


def _prior_draw(network: Network, rng_key: jax.Array) -> dict[str, jax.Array]:
    """Return one draw of all latent sites from the prior."""
    from numpyro.handlers import seed

    sites = trace(seed(network.model, rng_key)).get_trace(network.x[:1], network.y[:1])
    return {
        name: site["value"]
        for name, site in sites.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
