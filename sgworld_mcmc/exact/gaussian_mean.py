"""The posterior of the mean of Gaussian data with known noise."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.linalg import solve_triangular

from sgworld_mcmc.exact.base import representable, standard_normals
from sgworld_mcmc.exact.checks import (
    finite_array,
    finite_setting,
    fresh,
    positive_integer,
    positive_setting,
    prng_key,
)
from sgworld_mcmc.exact.gaussian import GaussianPosterior, least_squares


class GaussianMean(GaussianPosterior):
    """Posterior of the mean ``mu`` of Gaussian data.

    The model is mu_j ~ N(prior_mean, prior_scale^2), y_i | mu ~ N(mu, Sigma) with known Sigma.
    Calling the class simulates data; `from_data` takes your own data.

    Parameters
    ----------
    key : jax.Array, optional
        PRNG key of the simulated data; None stands for ``jax.random.key(0)``.
    num_data : int
        Number of observations N.
    dim : int
        Dimension D of an observation; the site ``mu`` has shape (D,).
    noise_scale, noise_covariance, prior_mean, prior_scale
        The same as in `from_data`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid; the message names it.

    Notes
    -----
    The posterior precision is N Sigma^-1 + prior_scale^-2 (Gelman et al., Bayesian Data Analysis,
    section 3.5).

    Examples
    --------
    >>> import numpy as np
    >>> from sgworld_mcmc import exact
    >>> posterior = exact.GaussianMean.from_data(np.array([1.0, 3.0]), prior_scale=1.0)
    >>> round(float(posterior.mean["mu"]), 6), round(float(posterior.sd[0]) ** 2, 6)
    (1.333333, 0.333333)
    """

    def __init__(
        self,
        key=None,
        num_data=1000,
        dim=3,
        *,
        noise_scale=1.0,
        noise_covariance=None,
        prior_mean=0.0,
        prior_scale=10.0,
    ):
        key_mean, key_noise = jax.random.split(prng_key(key, "GaussianMean"))
        shape = (positive_integer("num_data", num_data), positive_integer("dim", dim))
        root = _noise_root(shape[1:], noise_scale, noise_covariance)
        mu = standard_normals(key_mean, shape[1:])
        y = representable(mu + standard_normals(key_noise, shape) @ root.T)
        self._condition(y, noise_scale, noise_covariance, prior_mean, prior_scale)
        self.truth = {"mu": mu}

    @classmethod
    def from_data(
        cls, y, *, noise_scale=1.0, noise_covariance=None, prior_mean=0.0, prior_scale=10.0
    ):
        """Condition on your own data.

        Parameters
        ----------
        y : array_like
            (N, D) observations, or (N,) for a scalar site ``mu``.
        noise_scale : float or array_like
            Known standard deviation of the noise, a scalar or (D,).
        noise_covariance : array_like, optional
            Known covariance Sigma (D, D), positive definite. It replaces ``noise_scale``.
        prior_mean : float or array_like
            Prior mean, a scalar or (D,).
        prior_scale : float or array_like
            Prior standard deviation, a scalar or (D,); 10 is wide for data of unit size.

        Returns
        -------
        GaussianMean

        Raises
        ------
        ValueError
            If data are NaN or infinite, shapes are wrong, or scales are not positive.
        """
        posterior = cls.__new__(cls)
        posterior._condition(y, noise_scale, noise_covariance, prior_mean, prior_scale)
        return posterior

    def model(self, y):
        """Define the NumPyro model with the site ``mu``; ``y`` is that of `from_data`."""
        event = len(self.shapes["mu"])
        mu = numpyro.sample(
            "mu", dist.Normal(fresh(self.prior_mean), fresh(self.prior_scale)).to_event(event)
        )
        if self.noise_covariance is None:
            noise = dist.Normal(mu, fresh(self.noise_scale)).to_event(event)
        else:
            noise = dist.MultivariateNormal(mu, scale_tril=fresh(self._noise_root))
        with numpyro.plate("data", y.shape[0]):
            numpyro.sample("y", noise, obs=y)

    def _condition(self, y, noise_scale, noise_covariance, prior_mean, prior_scale):
        y = finite_array("y", y, (1, 2))
        shape = y.shape[1:]
        root = _noise_root(shape, noise_scale, noise_covariance)
        self.noise_scale = np.sqrt(np.sum(root**2, axis=1)).reshape(shape)
        self.noise_covariance = None if noise_covariance is None else root @ root.T
        self._noise_root = root
        self.prior_mean = finite_setting("prior_mean", prior_mean, shape)
        self.prior_scale = np.reshape(positive_setting("prior_scale", prior_scale, shape), shape)
        # N observations carry the information of their average with the noise over sqrt(N).
        white = solve_triangular(root, np.eye(len(root)), lower=True) * np.sqrt(len(y))
        average = y.mean(axis=0).reshape(-1)
        prior = np.diag(1 / self.prior_scale.reshape(-1))
        design = np.concatenate([white, prior])
        target = np.concatenate([white @ average, prior @ self.prior_mean.reshape(-1)])
        self._set_gaussian((y,), "mu", shape, least_squares(design, target))


def _noise_root(shape, noise_scale, noise_covariance):
    """Return the lower triangular root (D, D) of the noise covariance."""
    if noise_covariance is None:
        scale = np.reshape(positive_setting("noise_scale", noise_scale, shape), -1)
        return np.diag(scale)
    covariance = finite_array("noise_covariance", noise_covariance, 2)
    wanted = shape * 2
    if covariance.shape != wanted:
        raise ValueError(
            f"`noise_covariance` has shape {covariance.shape}; for observations of shape {shape} "
            f"it must be {wanted or 'None, use noise_scale'}."
        )
    if not np.allclose(covariance, covariance.T, rtol=1e-8, atol=0.0):
        raise ValueError("`noise_covariance` is not symmetric; pass (S + S.T) / 2.")
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "`noise_covariance` is not positive definite; add a small multiple of the identity."
        ) from error
