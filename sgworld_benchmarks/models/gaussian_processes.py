"""Gaussian processes: marginal, with latent values, and by basis functions."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_benchmarks.accuracy.problem import Problem, representable
from sgworld_benchmarks.models.simulate import binary

__all__ = ["GAUSSIAN_PROCESSES"]


def gp_marginal() -> Problem:
    """Simulate a smooth curve with noise."""
    x, y = curve(601, 60)
    sites = ("variance", "length", "noise")
    return Problem("GP regression, marginal", marginal_model, (x, y), sites)


def marginal_model(x, y):
    """All rows are one draw of a multivariate normal."""
    variance = numpyro.sample("variance", dist.LogNormal(0.0, 1.0))
    length = numpyro.sample("length", dist.LogNormal(0.0, 0.5))
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 1.0))
    covariance = variance * kernel(x, length) + (noise + 1e-6) * jnp.eye(x.shape[0])
    mean = jnp.zeros(x.shape[0])
    numpyro.sample("y", dist.MultivariateNormal(mean, covariance_matrix=covariance), obs=y)


def gp_latent() -> Problem:
    """Simulate counts whose log rate is a smooth curve."""
    x, f = curve(602, 50)
    y = np.random.default_rng(603).poisson(np.exp(f + 1))
    title = "GP with latent values, counts"
    return Problem(title, latent_model, (x, y), ("a", "length", "amplitude", "f"))


def latent_model(x, y):
    """White noise for each row, correlated by a Cholesky factor."""
    a = numpyro.sample("a", dist.Normal(0, 1))
    length = numpyro.sample("length", dist.InverseGamma(5, 5))
    amplitude = numpyro.sample("amplitude", dist.HalfNormal(1))
    eta = numpyro.sample("eta", dist.Normal(0, 1).expand([x.shape[0]]))
    root = jnp.linalg.cholesky(kernel(x, length) + 1e-5 * jnp.eye(x.shape[0]))
    f = numpyro.deterministic("f", amplitude * (root @ eta))
    numpyro.sample("y", dist.Poisson(jnp.exp(a + f)), obs=y)


def gp_basis() -> Problem:
    """Simulate a smooth curve with many rows."""
    x, y = curve(604, 800)
    sites = ("length", "amplitude", "noise", "beta")
    return Problem("GP by 12 basis functions", basis_model, (x, y), sites)


def basis_model(x, y):
    """Eigenfunctions of the Laplacian, weighted by the spectral density."""
    number = jnp.arange(1, 13)
    root = number * jnp.pi / 6.0  # on the interval from -3 to 3
    basis = jnp.sin(root * (x[:, None] + 3.0)) / jnp.sqrt(3.0)
    length = numpyro.sample("length", dist.InverseGamma(5, 5))
    amplitude = numpyro.sample("amplitude", dist.HalfNormal(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    with numpyro.plate("basis", 12):
        beta = numpyro.sample("beta", dist.Normal(0, 1))
    spectrum = amplitude * jnp.sqrt(jnp.sqrt(2 * jnp.pi) * length)
    weight = spectrum * jnp.exp(-0.25 * (length * root) ** 2)
    f = numpyro.deterministic("f", basis @ (weight * beta))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(f, noise), obs=y)


def gp_islands() -> Problem:
    """Simulate tools on ten islands that are near to or far from each other."""
    rng = np.random.default_rng(605)
    place = rng.uniform(0, 4, (10, 2))
    distance = representable(np.linalg.norm(place[:, None] - place, axis=-1))
    population = representable(rng.uniform(7, 12, 10))
    tools = rng.poisson(np.exp(0.3 * population + 0.3 * rng.normal(size=10)))
    data = (distance, population, np.arange(10), tools)
    sites = ("a", "b", "eta2", "rho2", "g")
    return Problem("islands, N x N distances", islands_model, data, sites, draws=5000)


def islands_model(distance, log_population, society, tools):
    """A matrix with a row and a column for each observation."""
    a = numpyro.sample("a", dist.Normal(0, 1))
    b = numpyro.sample("b", dist.Normal(0.3, 0.2))
    eta2 = numpyro.sample("eta2", dist.Exponential(2))
    rho2 = numpyro.sample("rho2", dist.Exponential(0.5))
    covariance = eta2 * jnp.exp(-rho2 * distance**2)
    covariance = covariance + 0.01 * jnp.eye(distance.shape[0])
    z = numpyro.sample("z", dist.Normal(0, 1).expand([distance.shape[0]]))
    g = numpyro.deterministic("g", jnp.linalg.cholesky(covariance) @ z)
    rate = jnp.exp(a + g[society] + b * log_population)
    numpyro.sample("tools", dist.Poisson(rate), obs=tools)


def gp_classifier() -> Problem:
    """Simulate labels on a grid of places, several for each place."""
    rng = np.random.default_rng(606)
    grid = representable(np.linspace(-2.5, 2.5, 20))
    place = rng.integers(0, 20, 2000)
    y = binary(rng, 1.5 * np.sin(2 * grid)[place])
    title = "GP on a grid, 2000 labels"
    return Problem(title, classifier_model, (grid, place, y), ("amplitude", "f"))


def classifier_model(grid, place, y):
    """A latent curve at twenty places, drawn from a multivariate normal."""
    amplitude = numpyro.sample("amplitude", dist.LogNormal(0, 0.5))
    covariance = amplitude**2 * (kernel(grid, 0.6) + 1e-3 * jnp.eye(grid.shape[0]))
    f = numpyro.sample("f", dist.MultivariateNormal(0.0, covariance_matrix=covariance))
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=f[place]), obs=y)


def kernel(x, length):
    """Return the squared-exponential correlation between all pairs."""
    return jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2)


def curve(seed, size):
    """Return places and noisy values of a smooth curve."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(-2.5, 2.5, size))
    return representable(x), representable(np.sin(1.5 * x) + 0.3 * rng.normal(size=size))


GAUSSIAN_PROCESSES = {
    function.__name__: function
    for function in (gp_marginal, gp_latent, gp_basis, gp_islands, gp_classifier)
}
