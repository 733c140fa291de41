"""The gamma-Poisson posterior: the rate of counts."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc.exact.base import ExactPosterior
from sgworld_mcmc.exact.checks import (
    finite_array,
    fresh,
    positive_integer,
    positive_setting,
    prng_key,
    whole_numbers,
)
from sgworld_mcmc.exact.marginal import gamma


class GammaPoisson(ExactPosterior):
    """Posterior of the rate ``rate`` of Poisson counts.

    The model is rate ~ Gamma(a0, b0) with the inverse scale b0, and y_i | rate ~ Poisson(rate).
    Calling the class simulates data; `from_data` takes your own data.

    Parameters
    ----------
    key : jax.Array, optional
        PRNG key of the simulated data; None stands for ``jax.random.key(0)``.
    num_data : int
        Number of observations N.
    rate : float
        The true rate.
    a0, b0
        The same as in `from_data`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid; the message names it.

    Notes
    -----
    The posterior is Gamma(a0 + sum y, b0 + N) (Gelman et al., Bayesian Data Analysis, section 2.6).

    Examples
    --------
    >>> from sgworld_mcmc import exact
    >>> posterior = exact.GammaPoisson.from_data([2, 4, 3], a0=1.0, b0=1.0)
    >>> float(posterior.mean["rate"])
    2.5
    """

    def __init__(self, key=None, num_data=1000, *, rate=3.0, a0=2.0, b0=1.0):
        key = prng_key(key, "GammaPoisson")
        num_data = positive_integer("num_data", num_data)
        rate = positive_setting("rate", rate)
        # In 64 bits the same key gives the same data, whatever JAX's default precision is.
        with jax.enable_x64(True):
            y = np.asarray(jax.random.poisson(key, rate, (num_data,)))
        self._condition(y, a0, b0)
        self.truth = {"rate": np.asarray(rate)}

    @classmethod
    def from_data(cls, y, *, a0=2.0, b0=1.0):
        """Condition on your own data.

        Parameters
        ----------
        y : array_like
            (N,) counts, as integers or as floats that are whole numbers.
        a0, b0 : float
            Shape and inverse scale of the gamma prior; 2 and 1 weigh like one observation and keep
            the prior density at zero rate finite.

        Returns
        -------
        GammaPoisson

        Raises
        ------
        ValueError
            If there are NaN, negative or fractional counts, the shape is wrong, or a parameter is
            not positive.
        """
        posterior = cls.__new__(cls)
        posterior._condition(y, a0, b0)
        return posterior

    def model(self, y):
        """Define the NumPyro model with the site ``rate``; ``y`` is that of `from_data`."""
        rate = numpyro.sample("rate", dist.Gamma(fresh(self.a0), fresh(self.b0)))
        with numpyro.plate("data", y.shape[0]):
            numpyro.sample("y", dist.Poisson(rate), obs=y)

    def marginal(self, name):
        """Return the exact marginal, a gamma distribution."""
        self._index(name)
        return gamma(self.a, self.b)

    def _condition(self, y, a0, b0):
        y = whole_numbers("y", finite_array("y", y, 1))
        self.a0, self.b0 = positive_setting("a0", a0), positive_setting("b0", b0)
        self.a = self.a0 + int(y.sum(dtype=np.int64))
        self.b = self.b0 + len(y)
        mean = np.array([self.a / self.b])
        self._set((y,), {"rate": ()}, mean, np.array([[self.a / self.b**2]]))

    def _draw(self, key, n):
        return jax.random.gamma(key, self.a, (n, 1), jnp.float64) / self.b

    def _log_density(self, flat, xp):
        rate = flat[..., 0]
        # A harmless value outside the support keeps gradients under jit finite.
        safe = xp.where(rate > 0, rate, 1.0)
        # Terms are relative to the mean, because float32 would lose the difference of large terms.
        mean = self.a / self.b
        at_mean = self.marginal("rate").distribution.logpdf(mean)
        value = (self.a - 1) * xp.log(safe / mean) - self.b * (safe - mean)
        return xp.where(rate > 0, at_mean + value, -np.inf)
