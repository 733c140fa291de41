"""The beta-Bernoulli posterior: the probability of a binary outcome."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc.exact.base import ExactPosterior
from sgworld_mcmc.exact.checks import (
    finite_array,
    finite_setting,
    fresh,
    positive_integer,
    positive_setting,
    prng_key,
    whole_numbers,
)
from sgworld_mcmc.exact.marginal import beta


class BetaBernoulli(ExactPosterior):
    """Posterior of the probability ``p`` of a binary outcome.

    The model is p ~ Beta(a0, b0), y_i | p ~ Bernoulli(p). Calling the class simulates data;
    `from_data` takes your own data.

    Parameters
    ----------
    key : jax.Array, optional
        PRNG key of the simulated data; None stands for ``jax.random.key(0)``.
    num_data : int
        Number of observations N.
    probability : float
        The true p, between 0 and 1. The default, 0.3, gives a skewed posterior if N is small.
    a0, b0
        The same as in `from_data`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid; the message names it.

    Notes
    -----
    The posterior is Beta(a0 + sum y, b0 + N - sum y) (Gelman et al., Bayesian Data Analysis,
    section 2.4).

    Examples
    --------
    >>> from sgworld_mcmc import exact
    >>> posterior = exact.BetaBernoulli.from_data([1, 0, 1])
    >>> float(posterior.mean["p"])
    0.6
    """

    def __init__(self, key=None, num_data=1000, *, probability=0.3, a0=1.0, b0=1.0):
        key = prng_key(key, "BetaBernoulli")
        num_data = positive_integer("num_data", num_data)
        probability = float(finite_setting("probability", probability, ()))
        if not 0 <= probability <= 1:
            raise ValueError(f"`probability` is {probability:g}; it must lie between 0 and 1.")
        # In 64 bits the same key gives the same data, whatever JAX's default precision is.
        with jax.enable_x64(True):
            y = np.asarray(jax.random.bernoulli(key, probability, (num_data,)))
        self._condition(y, a0, b0)
        self.truth = {"p": np.asarray(probability)}

    @classmethod
    def from_data(cls, y, *, a0=1.0, b0=1.0):
        """Condition on your own data.

        Parameters
        ----------
        y : array_like
            (N,) outcomes 0 or 1, as booleans, integers or floats.
        a0, b0 : float
            Parameters of the prior Beta(a0, b0); 1 and 1 make it uniform.

        Returns
        -------
        BetaBernoulli

        Raises
        ------
        ValueError
            If there are NaN or other values than 0 and 1, the shape is wrong, or a parameter is
            not positive.
        """
        posterior = cls.__new__(cls)
        posterior._condition(y, a0, b0)
        return posterior

    def model(self, y):
        """Define the NumPyro model with the site ``p``; ``y`` is that of `from_data`."""
        p = numpyro.sample("p", dist.Beta(fresh(self.a0), fresh(self.b0)))
        with numpyro.plate("data", y.shape[0]):
            numpyro.sample("y", dist.Bernoulli(probs=p), obs=y)

    def marginal(self, name):
        """Return the exact marginal, a beta distribution."""
        self._index(name)
        return beta(self.a, self.b)

    def _condition(self, y, a0, b0):
        y = whole_numbers("y", finite_array("y", y, 1), upper=1)
        self.a0, self.b0 = positive_setting("a0", a0), positive_setting("b0", b0)
        ones = int(y.sum())
        self.a, self.b = self.a0 + ones, self.b0 + len(y) - ones
        total = self.a + self.b
        mean = np.array([self.a / total])
        variance = self.a * self.b / (total**2 * (total + 1))
        self._set((y,), {"p": ()}, mean, np.array([[variance]]))

    def _draw(self, key, n):
        return jax.random.beta(key, self.a, self.b, (n, 1), jnp.float64)

    def _log_density(self, flat, xp):
        p = flat[..., 0]
        inside = (p > 0) & (p < 1)
        # A harmless value outside the support keeps gradients under jit finite.
        safe = xp.where(inside, p, 0.5)
        # Terms are relative to the mean, because float32 would lose the difference of large terms.
        mean = self.a / (self.a + self.b)
        at_mean = self.marginal("p").distribution.logpdf(mean)
        value = (self.a - 1) * xp.log(safe / mean)
        value = value + (self.b - 1) * xp.log((1 - safe) / (1 - mean))
        return xp.where(inside, at_mean + value, -np.inf)
