"""The Gaussian posterior of a linear regression with known noise.

The other linear regression of this package takes its data, fit and predictor from here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc.exact.base import representable, standard_normals
from sgworld_mcmc.exact.checks import (
    finite_array,
    finite_setting,
    fresh,
    positive_integer,
    positive_setting,
    prng_key,
    same_rows,
)
from sgworld_mcmc.exact.gaussian import GaussianPosterior, least_squares


class LinearRegression(GaussianPosterior):
    """Posterior of the coefficients ``beta`` of a linear regression with known noise.

    The model is beta_j ~ N(prior_mean, prior_scale^2), y_i | beta ~ N(X_i beta, noise_scale^2).
    There is no intercept; a column of ones in ``X`` adds one. Calling the class simulates data;
    `from_data` takes your own data.

    Parameters
    ----------
    key : jax.Array, optional
        PRNG key of the simulated data; None stands for ``jax.random.key(0)``.
    num_data : int
        Number of rows N.
    dim : int
        Number of columns D, which may exceed N.
    correlation : float
        Correlation of any two features, at least 0 (the default, well conditioned) and below 1.
        The features are Gaussian with unit variance.
    noise_scale, prior_mean, prior_scale
        The same as in `from_data`.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid; the message names it.

    Notes
    -----
    The posterior precision is X^T X / noise_scale^2 + prior_scale^-2 (Gelman et al., Bayesian Data
    Analysis, section 14.8); its root comes from a QR decomposition.

    Examples
    --------
    >>> import numpy as np
    >>> from sgworld_mcmc import exact
    >>> X = np.array([[1.0], [2.0]])
    >>> posterior = exact.LinearRegression.from_data(X, [1.0, 2.0], prior_scale=1.0)
    >>> posterior.mean["beta"].round(6)
    array([0.833333])
    """

    def __init__(
        self,
        key=None,
        num_data=1000,
        dim=3,
        *,
        correlation=0.0,
        noise_scale=1.0,
        prior_mean=0.0,
        prior_scale=10.0,
    ):
        noise_scale = positive_setting("noise_scale", noise_scale)
        key = prng_key(key, "LinearRegression")
        X, y, beta = simulate_regression(key, num_data, dim, correlation, noise_scale)
        self._condition(X, y, noise_scale, prior_mean, prior_scale)
        self.truth = {"beta": beta}

    @classmethod
    def from_data(cls, X, y, *, noise_scale=1.0, prior_mean=0.0, prior_scale=10.0):
        """Condition on your own data.

        Parameters
        ----------
        X : array_like
            (N, D) features.
        y : array_like
            (N,) responses.
        noise_scale : float
            Known standard deviation of the noise.
        prior_mean : float or array_like
            Prior mean, a scalar or (D,).
        prior_scale : float or array_like
            Prior standard deviation, a scalar or (D,); 10 is wide for coefficients of unit size.

        Returns
        -------
        LinearRegression

        Raises
        ------
        ValueError
            If data are NaN or infinite, numbers of rows differ, shapes are wrong, or scales are
            not positive.
        """
        posterior = cls.__new__(cls)
        posterior._condition(X, y, noise_scale, prior_mean, prior_scale)
        return posterior

    def model(self, X, y=None):
        """Define the NumPyro model with the site ``beta``; without ``y`` it predicts."""
        beta = numpyro.sample(
            "beta", dist.Normal(fresh(self.prior_mean), fresh(self.prior_scale)).to_event(1)
        )
        with numpyro.plate("data", X.shape[0]):
            numpyro.sample(
                "y", dist.Normal(linear_predictor(X, beta), fresh(self.noise_scale)), obs=y
            )

    def _condition(self, X, y, noise_scale, prior_mean, prior_scale):
        X, y = check_regression(X, y)
        shape = X.shape[1:]
        self.noise_scale = positive_setting("noise_scale", noise_scale)
        self.prior_mean = finite_setting("prior_mean", prior_mean, shape)
        self.prior_scale = positive_setting("prior_scale", prior_scale, shape)
        fit = regression_fit(X, y, self.prior_mean, self.prior_scale, self.noise_scale)
        self._set_gaussian((X, y), "beta", shape, fit)


def simulate_regression(key, num_data, dim, correlation, noise_scale):
    """Draw equicorrelated unit-variance features, coefficients of unit size and responses."""
    num_data, dim = positive_integer("num_data", num_data), positive_integer("dim", dim)
    correlation = float(finite_setting("correlation", correlation, ()))
    if not 0 <= correlation < 1:
        raise ValueError(f"`correlation` is {correlation:g}; it must be at least 0 and below 1.")
    key_features, key_common, key_beta, key_noise = jax.random.split(key, 4)
    own = standard_normals(key_features, (num_data, dim))
    common = standard_normals(key_common, (num_data, 1))
    X = representable(np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common)
    beta = standard_normals(key_beta, (dim,))
    y = representable(X @ beta + noise_scale * standard_normals(key_noise, (num_data,)))
    return X, y, beta


def check_regression(X, y):
    """Validate features and responses, and return float64 copies."""
    X, y = finite_array("X", X, 2), finite_array("y", y, 1)
    same_rows(X=X, y=y)
    return X, y


def regression_fit(X, y, prior_mean, prior_scale, noise_scale):
    """Fit the data and the prior by least squares, each in units of its standard deviation."""
    design = np.concatenate([X / noise_scale, np.diag(1 / prior_scale)])
    target = np.concatenate([y / noise_scale, prior_mean / prior_scale])
    return least_squares(design, target)


def linear_predictor(X, beta):
    """Return X beta in full float32; accelerators would round the factors to fewer bits."""
    return jnp.matmul(X, beta, precision=jax.lax.Precision.HIGHEST)
