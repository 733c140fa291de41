"""The normal-inverse-gamma posterior of a linear regression with unknown noise."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc.exact.base import ExactPosterior
from sgworld_mcmc.exact.checks import finite_setting, fresh, positive_setting, prng_key
from sgworld_mcmc.exact.linear_regression import (
    check_regression,
    linear_predictor,
    regression_fit,
    simulate_regression,
)
from sgworld_mcmc.exact.marginal import inverse_gamma, student_t


class LinearRegressionUnknownNoise(ExactPosterior):
    """Posterior of coefficients ``beta`` and noise variance ``sigma2`` of a linear regression.

    The model is sigma2 ~ InverseGamma(a0, b0), beta | sigma2 ~ N(prior_mean, sigma2 prior_scale^2),
    y_i | beta, sigma2 ~ N(X_i beta, sigma2). The posterior is not Gaussian: the marginals of
    ``beta`` are Student t, and that of ``sigma2`` is inverse gamma. Calling the class simulates
    data; `from_data` takes your own.

    Parameters
    ----------
    key : jax.Array, optional
        PRNG key of the simulated data; None stands for ``jax.random.key(0)``.
    num_data : int
        Number of rows N.
    dim : int
        Number of columns D, which may exceed N.
    correlation : float
        Correlation of any two features, at least 0 and below 1.
    noise_scale : float
        Standard deviation of the simulated noise, which the posterior does not know.
    a0, b0, prior_mean, prior_scale
        The same as in `from_data`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid; the message names it.

    Notes
    -----
    With V^-1 = X^T X + prior_scale^-2, a = a0 + N/2 and b = b0 + half the minimum of
    |y - X beta|^2 + |(beta - prior_mean) / prior_scale|^2: sigma2 ~ InverseGamma(a, b) and
    beta | sigma2 ~ N(mean, sigma2 V) (O'Hagan and Forster, Kendall's Advanced Theory 2B, ch. 11).

    Examples
    --------
    >>> from sgworld_mcmc import exact
    >>> posterior = exact.LinearRegressionUnknownNoise(num_data=100, dim=2)
    >>> posterior.names
    ('beta[0]', 'beta[1]', 'sigma2')
    """

    def __init__(
        self,
        key=None,
        num_data=1000,
        dim=3,
        *,
        correlation=0.0,
        noise_scale=1.0,
        a0=2.0,
        b0=1.0,
        prior_mean=0.0,
        prior_scale=10.0,
    ):
        noise_scale = positive_setting("noise_scale", noise_scale)
        key = prng_key(key, "LinearRegressionUnknownNoise")
        X, y, beta = simulate_regression(key, num_data, dim, correlation, noise_scale)
        self._condition(X, y, a0, b0, prior_mean, prior_scale)
        self.truth = {"beta": beta, "sigma2": np.asarray(noise_scale**2)}

    @classmethod
    def from_data(cls, X, y, *, a0=2.0, b0=1.0, prior_mean=0.0, prior_scale=10.0):
        """Condition on your own data.

        Parameters
        ----------
        X : array_like
            (N, D) features.
        y : array_like
            (N,) responses.
        a0, b0 : float
            Shape and scale of the inverse-gamma prior; 2 and 1 give prior mean 1 for ``sigma2``
            and weigh like four observations.
        prior_mean : float or array_like
            Prior mean of ``beta``, a scalar or (D,).
        prior_scale : float or array_like
            Prior standard deviation of ``beta`` in units of the noise's, a scalar or (D,).

        Returns
        -------
        LinearRegressionUnknownNoise

        Raises
        ------
        ValueError
            If data are NaN or infinite, numbers of rows differ, shapes are wrong, settings are not
            positive, or there are too few data for a posterior variance (a0 + N/2 <= 2).
        """
        posterior = cls.__new__(cls)
        posterior._condition(X, y, a0, b0, prior_mean, prior_scale)
        return posterior

    def model(self, X, y=None):
        """Define the NumPyro model with ``beta`` and ``sigma2``; without ``y`` it predicts."""
        sigma2 = numpyro.sample("sigma2", dist.InverseGamma(fresh(self.a0), fresh(self.b0)))
        sigma = jnp.sqrt(sigma2)
        prior = dist.Normal(fresh(self.prior_mean), sigma * fresh(self.prior_scale)).to_event(1)
        beta = numpyro.sample("beta", prior)
        with numpyro.plate("data", X.shape[0]):
            numpyro.sample("y", dist.Normal(linear_predictor(X, beta), sigma), obs=y)

    def marginal(self, name):
        """Return the exact marginal: Student t for ``beta[j]``, inverse gamma for ``sigma2``."""
        i = self._index(name)
        if name == "sigma2":
            return inverse_gamma(self.a, self.b)
        scale = np.sqrt(self.b / self.a) * np.linalg.norm(self._fit.inverse_root[i])
        return student_t(2 * self.a, self._fit.solution[i], scale)

    def _condition(self, X, y, a0, b0, prior_mean, prior_scale):
        X, y = check_regression(X, y)
        shape = X.shape[1:]
        self.a0, self.b0 = positive_setting("a0", a0), positive_setting("b0", b0)
        self.prior_mean = finite_setting("prior_mean", prior_mean, shape)
        self.prior_scale = positive_setting("prior_scale", prior_scale, shape)
        self._fit = regression_fit(X, y, self.prior_mean, self.prior_scale, 1.0)
        self.a = self.a0 + len(y) / 2
        self.b = self.b0 + self._fit.residual / 2
        if self.a <= 2:
            raise ValueError(
                f"`a0` = {self.a0:g} with {len(y)} rows leaves `sigma2` without a variance "
                "(a0 + N/2 must exceed 2); pass a larger a0 or more rows."
            )
        sigma2 = self.b / (self.a - 1)
        dim = shape[0]
        # beta and sigma2 are uncorrelated: the mean of beta does not depend on sigma2.
        covariance = np.zeros((dim + 1, dim + 1))
        covariance[:dim, :dim] = sigma2 * self._fit.inverse_root @ self._fit.inverse_root.T
        covariance[dim, dim] = sigma2**2 / (self.a - 2)
        mean = np.append(self._fit.solution, sigma2)
        self._set((X, y), {"beta": shape, "sigma2": ()}, mean, covariance)

    def _draw(self, key, n):
        key_noise, key_beta = jax.random.split(key)
        sigma2 = self.b / np.asarray(jax.random.gamma(key_noise, self.a, (n, 1), jnp.float64))
        white = np.asarray(jax.random.normal(key_beta, (n, len(self.names) - 1), jnp.float64))
        beta = self._fit.solution + np.sqrt(sigma2) * (white @ self._fit.inverse_root.T)
        return np.concatenate([beta, sigma2], axis=1)

    def _log_density(self, flat, xp):
        beta, sigma2 = flat[..., :-1], flat[..., -1]
        dim = len(self.names) - 1
        # A harmless value outside the support keeps gradients under jit finite.
        safe = xp.where(sigma2 > 0, sigma2, 1.0)
        square = xp.sum(((beta - self._fit.solution) @ self._fit.root.T) ** 2, axis=-1)
        log_det = np.log(np.diag(self._fit.root)).sum()
        given_noise = log_det - 0.5 * dim * xp.log(2 * np.pi * safe) - 0.5 * square / safe
        # Terms are relative to the mean, because float32 would lose the difference of large terms.
        mean = self.b / (self.a - 1)
        at_mean = self.marginal("sigma2").distribution.logpdf(mean)
        noise = -(self.a + 1) * xp.log(safe / mean) - self.b * (1 / safe - 1 / mean)
        return xp.where(sigma2 > 0, at_mean + noise + given_noise, -np.inf)
