"""A NumPyro model seen through minibatches of its data.

The model evaluates the log density of any set of rows as a prior part and a part that is a sum over
rows. :func:`sgworld_mcmc.model.inspection.minibatch_model` makes it from what a user has written.
"""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.util import sum_rightmost

from sgworld_mcmc.model.arguments import ArgumentLayout
from sgworld_mcmc.model.enumeration import SUMMED, enumerated_terms
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.model.flat_position import FlatPosition
from sgworld_mcmc.model.index_range import IndexRead
from sgworld_mcmc.model.plates import RowPlates
from sgworld_mcmc.model.random_parts import RANDOM, FreshState, key_at
from sgworld_mcmc.model.reverse_only import with_forward_mode
from sgworld_mcmc.model.traces import Site, log_density, trace_of, unconstrained

__all__ = ["MinibatchModel"]

# A deterministic site with a value for each row is kept if it has at most this many values in a
# draw: with more of them 1000 draws would fill a gigabyte.
MAX_DETERMINISTIC = 250_000


class MinibatchModel(FlatPosition):
    """The log density of a NumPyro model on any rows of its data.

    Attributes
    ----------
    layout
        :class:`~sgworld_mcmc.model.arguments.ArgumentLayout` of the arguments; its ``size`` is N.
    plates
        Names of the plates over the rows.
    additive
        Names of the sites whose log density is a sum over rows, as found by
        :func:`sgworld_mcmc.model.additivity.check_minibatching`. All others belong to the prior.
    precise
        Whether the model may be evaluated in double precision even where the user works in single.
    reverse_only
        Whether the model calls functions that refuse forward-mode derivatives: second derivatives
        are made of reverse ones then.
    convolves
        Whether the model is a network with convolutions (:mod:`sgworld_mcmc.model.convolutions`).
    indices
        What the model indexes by its arguments (:mod:`sgworld_mcmc.model.index_range`).
    num_rows
        Number of rows of the user's data: N, also where the only batch stands for all of them.
    reason
        Why the model cannot be cut into minibatches; None if it can.
    taken
        Number of rows that are in every batch (:mod:`sgworld_mcmc.model.take_all`).
    kept
        Compiled functions of other modules for this model, kept as long as the model lives.
    """

    def __init__(
        self,
        model: Callable,
        layout: ArgumentLayout,
        plates: frozenset[str],
        sites: dict[str, Site],
        prototype: dict[str, jax.ShapeDtypeStruct],
    ) -> None:
        self.model, self.layout, self.plates, self.sites = model, layout, plates, sites
        discrete = (n for n, s in sites.items() if s.kind == "latent" and s.discrete)
        self.discrete = frozenset(discrete)
        self.nesting = max((site.nesting for site in sites.values()), default=0)
        if self.discrete:
            self.sites = {**sites, SUMMED: Site("observed", (), False, ())}
        self.additive = frozenset(n for n, s in sites.items() if s.kind == "observed")
        if self.discrete:
            self.additive = frozenset({SUMMED})
        super().__init__({name: leaf.shape for name, leaf in prototype.items()})
        self.precise, self.reverse_only, self.convolves = False, False, False
        self.num_rows, self.reason, self.taken = layout.size, None, 0
        self.indices: list[IndexRead] = []
        self._remember()

    def _remember(self) -> None:
        # A trace through NumPyro's handlers takes about 50 ms: it is made once for each shape of
        # the arguments.
        density = with_forward_mode(self.untraced) if self.reverse_only else self.untraced
        self._traced = jax.jit(density, inline=True)
        self.kept: dict[Any, Any] = {}

    def with_additive(self, additive: frozenset[str]) -> "MinibatchModel":
        """Return the same model, given the sites whose log density is a sum over rows."""
        other = copy.copy(self)
        other.additive = additive
        other._remember()
        return other

    def use_modes(self, *, reverse_only: bool) -> None:
        """Say whether the model calls functions that know reverse-mode derivatives only."""
        if reverse_only != self.reverse_only:
            self.reverse_only = reverse_only
            self._remember()

    @property
    def size(self) -> int:
        """Number of rows N."""
        return self.layout.size

    @property
    def random(self) -> bool:
        """Whether the log density depends on random numbers that the model draws."""
        return RANDOM in self.sites

    @property
    def deterministics(self) -> tuple[str, ...]:
        """Names of the deterministic sites."""
        return tuple(n for n, s in self.sites.items() if s.kind == "deterministic")

    def log_densities(
        self,
        params: dict[str, jax.Array],
        rows: tuple,
        constants: tuple,
        *,
        total: bool = True,
        key: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Return the log density of every sample site on these rows, with Jacobians, unscaled.

        Parameters
        ----------
        params
            Unconstrained values by site.
        rows, constants
            Data leaves with any number of rows, and constant leaves.
        total
            Whether to sum each site's log density to a scalar (default).
        key
            Random key of the model's random parts; None for one that belongs to the point and the
            rows (:func:`sgworld_mcmc.model.random_parts.key_at`). Other models have no use for it.
        """
        if self.discrete:
            return self._summed(params, rows, constants, key)
        _, terms = self._evaluate(params, rows, constants, key)
        return {name: jnp.sum(term) for name, term in terms.items()} if total else terms

    def log_density(
        self,
        flat: jax.Array,
        rows: tuple,
        constants: tuple,
        key: jax.Array | None = None,
        weight: jax.Array | float | None = None,
    ) -> jax.Array:
        """Estimate the log density from n rows: log prior + N / n * the rows' log likelihood.

        The estimate is a mean over the rows, as :mod:`sgworld_mcmc.gradients.weighting` needs it.
        ``key`` is that of :meth:`log_densities`. The log likelihood counts ``weight`` times:
        n / N for the posterior given nothing but these rows.
        """
        return self._traced(flat, rows, constants, key, weight)

    def untraced(
        self,
        flat: jax.Array,
        rows: tuple,
        constants: tuple,
        key: jax.Array | None = None,
        weight: jax.Array | float | None = None,
    ) -> jax.Array:
        """Return the same as :meth:`log_density`; every call runs the user's model."""
        count = jax.tree.leaves(rows)[0].shape[0]
        if key is not None:  # the row that some batches have more than others is a call of its own
            key = jax.random.fold_in(key, count)
        terms = self.log_densities(self.unravel(flat), rows, constants, key=key)
        prior = sum(v for name, v in terms.items() if name not in self.additive)
        factor = self.size / count if weight is None else weight * (self.size / count)
        return prior + factor * sum(terms[name] for name in self.additive)

    def of_sample(self, flat: jax.Array, rows: tuple, constants: tuple) -> jax.Array:
        """Return the part of :meth:`log_density` whose likelihood is estimated from the rows."""
        return self.log_density(flat, rows, constants)

    def log_likelihood(self, flat: jax.Array, rows: tuple, constants: tuple) -> jax.Array:
        """Return the part of the log density that is a sum over rows, for these rows."""
        terms = self.log_densities(self.unravel(flat), rows, constants)
        return sum(terms[name] for name in self.additive)

    def constrain(
        self, params: dict[str, jax.Array], data: tuple, constants: tuple
    ) -> dict[str, jax.Array]:
        """Return constrained latent sites and deterministic sites, evaluated on all rows."""
        _, trace, _ = self._trace(params, data, constants)
        keep = [*self.latents, *(n for n in self.deterministics if self._is_kept(n))]
        return {name: trace[name]["value"] for name in keep}

    def left_out(self) -> list[str]:
        """Return the deterministic sites with too many values to be kept for every draw."""
        return [name for name in self.deterministics if not self._is_kept(name)]

    def _is_kept(self, name: str) -> bool:
        shape = self.sites[name].shape
        return self.num_rows not in shape or int(np.prod(shape)) <= MAX_DETERMINISTIC

    def initial_params(
        self, rng_key: jax.Array, strategy: Callable, rows: tuple, constants: tuple
    ) -> dict[str, jax.Array]:
        """Return one unconstrained starting point from a NumPyro initialisation strategy."""
        model, (args, kwargs) = self._rows_of(rows), self.layout.join(rows, constants)
        trace = trace_of(model, rng_key, strategy, args, kwargs)
        return {name: unconstrained(trace[name]) for name in self.latents}

    def weights(
        self, params: dict[str, jax.Array], rows: tuple, constants: tuple, key: jax.Array
    ) -> dict[str, Any]:
        """Return the values of the ``numpyro.param`` sites, which have no prior."""
        _, trace, _ = self._trace(params, rows, constants, key)
        return {name: site["value"] for name, site in trace.items() if site["type"] == "param"}

    def _rows_of(self, rows: tuple) -> RowPlates:
        return RowPlates(self.model, self.plates, jax.tree.leaves(rows)[0].shape[0])

    def _trace(
        self, params: dict, rows: tuple, constants: tuple, key: jax.Array | None = None
    ) -> tuple[RowPlates, dict, dict]:
        """Return the model for these rows, its trace, and the Jacobians' terms by site."""
        log_dets = {}

        def value_of(site: dict):
            if site["type"] != "sample" or site["is_observed"]:
                return None
            name, support = site["name"], site["fn"].support
            if name in self.discrete:
                return None
            if name not in params:
                raise ValueError(
                    f"The latent site {name!r} appeared only when the model was given a minibatch. "
                    "Latent sites must not depend on the number of rows."
                )
            transform = biject_to(support)
            value = transform(params[name])
            if support is not constraints.real:
                log_det = transform.log_abs_det_jacobian(params[name], value)
                surplus = jnp.ndim(log_det) - jnp.ndim(value) + len(site["fn"].event_shape)
                log_dets[name] = sum_rightmost(log_det, surplus)
            return value

        model = self._rows_of(rows)
        seeded, seed = self._with_fresh_state(model, params, rows, key)
        args, kwargs = self.layout.join(rows, constants)
        # Every continuous site is substituted; the seed is needed for numpyro.prng_key() in the
        # model and for discrete sites.
        trace = trace_of(seeded, seed, value_of, args, kwargs)
        return model, trace, log_dets

    def _with_fresh_state(
        self, model: Callable, params: dict, rows: tuple, key: jax.Array | None
    ) -> tuple[Callable, jax.Array]:
        """Return the model with its modules' keys renewed, and the seed of the keys it asks for."""
        if not self.random:
            return model, jax.random.key(0)
        seed, state_key = jax.random.split(key_at(params, rows) if key is None else key)
        return FreshState(model, state_key), seed

    def _summed(
        self, params: dict, rows: tuple, constants: tuple, key: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Return the terms of a model whose discrete sites are summed out."""
        _, trace, log_dets = self._trace(params, rows, constants, key)
        values = {name: trace[name]["value"] for name in self.latents}
        model, (args, kwargs) = self._rows_of(rows), self.layout.join(rows, constants)
        seeded, seed = self._with_fresh_state(model, params, rows, key)
        terms = enumerated_terms(
            seeded, args, kwargs, values, seed, discrete=self.discrete, nesting=self.nesting
        )
        for name, term in log_dets.items():
            terms[name] = terms.get(name, 0.0) + jnp.sum(term)
        if model.scales:
            raise NotMinibatchable(
                f"The plates {sorted(model.scales)} have their size written into the model, and "
                "discrete sites are summed out inside: take the size from the data, len(y)."
            )
        return terms

    def _evaluate(
        self, params: dict, rows: tuple, constants: tuple, key: jax.Array | None
    ) -> tuple[dict, dict]:
        model, trace, log_dets = self._trace(params, rows, constants, key)
        terms = {}
        for name, site in trace.items():
            if site["type"] != "sample":
                continue
            term = log_density(site) + log_dets.get(name, 0.0)
            scale = 1.0 if site["scale"] is None else site["scale"]
            for frame in site["cond_indep_stack"]:
                scale = scale / model.scales.get(frame.name, 1.0)
            terms[name] = term * scale
        return trace, terms
