"""Problems whose posterior moments are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from scipy.special import polygamma, psi

from sgworld_benchmarks.accuracy.problem import (
    Problem,
    exact_moments,
    exact_problem,
    representable,
)
from sgworld_mcmc import exact

__all__ = ["CONJUGATE"]


def linear() -> Problem:
    """Return a linear regression with known noise: a Gaussian posterior, correlated features."""
    posterior = exact.LinearRegression(jax.random.key(1), 5000, 10, correlation=0.7)
    return exact_problem("linear regression, known noise", posterior)


def linear_noise() -> Problem:
    """Return a linear regression with unknown noise: Student-t and inverse-gamma marginals."""
    posterior = exact.LinearRegressionUnknownNoise(jax.random.key(2), 60, 4)
    return exact_problem("linear regression, unknown noise", posterior)


def beta_bernoulli() -> Problem:
    """Return the probability of a rare outcome, seen 3 times in 40, as a skewed posterior."""
    y = np.zeros(40)
    y[[4, 17, 31]] = 1
    return exact_problem("probability, 3 of 40", exact.BetaBernoulli.from_data(y))


def gamma_poisson() -> Problem:
    """Return the rate of a Poisson variable."""
    posterior = exact.GammaPoisson(jax.random.key(3), 500, rate=0.8)
    return exact_problem("rate of a Poisson variable", posterior)


def gaussian_mean() -> Problem:
    """Return the mean of eight numbers."""
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    posterior = exact.GaussianMean.from_data(y, noise_scale=10.0, prior_scale=20.0)
    return exact_problem("mean of 8 numbers", posterior)


def dirichlet() -> Problem:
    """Return a simplex: five categories' probabilities, one of them seen twice in 150 rows."""
    counts = np.array([70, 45, 23, 10, 2])
    y = np.random.default_rng(4).permutation(np.repeat(np.arange(5), counts))
    alpha = 1.0 + counts
    mean = alpha / alpha.sum()
    sd = np.sqrt(mean * (1 - mean) / (alpha.sum() + 1))
    moments = exact_moments([f"p[{k}]" for k in range(5)], mean, sd)
    return Problem("simplex, 5 categories", categorical, (y,), ("p",), moments)


def flat_prior() -> Problem:
    """Return a linear regression with improper flat priors of coefficients and log sigma."""
    rng = np.random.default_rng(5)
    X = representable(rng.normal(size=(80, 3)))
    y = representable(X @ [1.0, -0.5, 0.0] + 0.7 * rng.normal(size=80))
    freedom = len(y) - X.shape[1]
    beta, (residual,), *_ = np.linalg.lstsq(X, y, rcond=None)
    # beta is Student-t with `freedom` degrees of freedom, residual / sigma^2 is chi-squared
    # (Gelman et al., Bayesian Data Analysis, section 14.2).
    covariance = np.linalg.inv(X.T @ X) * residual / (freedom - 2)
    log_sigma = 0.5 * (np.log(residual / 2) - psi(freedom / 2))
    mean = np.append(beta, log_sigma)
    sd = np.append(np.sqrt(np.diag(covariance)), 0.5 * np.sqrt(polygamma(1, freedom / 2)))
    moments = exact_moments(["beta[0]", "beta[1]", "beta[2]", "log_sigma"], mean, sd)
    sites = ("beta", "log_sigma")
    return Problem("improper flat priors", flat_regression, (X, y), sites, moments)


def calendar_year() -> Problem:
    """Return a trend over raw calendar years: a posterior of condition number about 1e10."""
    rng = np.random.default_rng(6)
    year = rng.integers(1960, 2021, 300).astype(float)
    y = representable(4.0 + 0.03 * (year - 1990) + 0.5 * rng.normal(size=300))
    X = np.stack([np.ones(300), year], 1)
    posterior = exact.LinearRegressionUnknownNoise.from_data(X, y, prior_scale=(1000.0, 10.0))
    title = "calendar year, linear trend"
    return exact_problem(title, posterior, centred_years(posterior))


def centred_years(posterior):
    """Return a model of the same posterior in terms of the level in 1990, which NUTS can sample."""

    def model(X, y):
        sigma2 = numpyro.sample("sigma2", dist.InverseGamma(posterior.a0, posterior.b0))
        sigma = jnp.sqrt(sigma2)
        level = numpyro.sample("level", dist.ImproperUniform(constraints.real, (), ()))
        slope = numpyro.sample("slope", dist.Normal(0, 10 * sigma))
        intercept = level - 1990 * slope
        numpyro.factor("prior", dist.Normal(0, 1000 * sigma).log_prob(intercept))
        numpyro.deterministic("beta", jnp.stack([intercept, slope]))
        numpyro.sample("y", dist.Normal(level + slope * (X[:, 1] - 1990), sigma), obs=y)

    return model


def categorical(y):
    """Categories y of N rows, with a uniform prior on the simplex."""
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(5)))
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Categorical(probs=p), obs=y)


def flat_regression(X, y):
    """Linear regression without any proper prior."""
    flat = dist.ImproperUniform(constraints.real_vector, (), (X.shape[1],))
    beta = numpyro.sample("beta", flat)
    log_sigma = numpyro.sample("log_sigma", dist.ImproperUniform(constraints.real, (), ()))
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Normal(X @ beta, jnp.exp(log_sigma)), obs=y)


CONJUGATE = {
    function.__name__: function
    for function in (
        linear,
        linear_noise,
        beta_bernoulli,
        gamma_poisson,
        gaussian_mean,
        dirichlet,
        flat_prior,
        calendar_year,
    )
}
