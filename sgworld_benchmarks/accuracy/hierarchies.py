"""Hierarchies, a mixture and a correlation matrix, whose references are stored runs of NUTS."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import transforms

from sgworld_benchmarks.accuracy.gamma_poisson import gamma_poisson_groups_problem
from sgworld_benchmarks.accuracy.problem import Problem, representable

__all__ = ["HIERARCHIES"]


def correlation() -> Problem:
    """Return a correlation matrix (LKJ), scales and means of four variables."""
    rng = np.random.default_rng(30)
    root = np.linalg.cholesky(0.5 * np.eye(4) + 0.5)
    root[3] = [-0.7, 0.3, 0.0, 0.65]
    y = representable(rng.normal(size=(120, 4)) @ root.T * [1.0, 2.0, 0.5, 1.0])
    sites = ("mean", "scale", "corr")
    return Problem("correlation matrix, 4 x 4", correlation_model, (y,), sites)


def mixture() -> Problem:
    """Return two overlapping normals with ordered means, unknown weights and scales."""
    rng = np.random.default_rng(31)
    label = rng.random(400) < 0.35
    y = representable(np.where(label, rng.normal(-1.5, 0.7, 400), rng.normal(1.2, 1.0, 400)))
    sites = ("weights", "means", "scales")
    return Problem("mixture, ordered means", mixture_model, (y,), sites, draws=4500)


def eight_schools() -> Problem:
    """Return eight schools (Rubin 1981), non-centred: 8 of 10 latents belong to one row each."""
    sites = ("mu", "tau", "z", "theta")
    return Problem("8 schools, non-centred", non_centred_schools, schools(), sites)


def funnel() -> Problem:
    """Return eight schools, centred: a funnel without a usable mode, which must give a warning."""
    return Problem(
        "8 schools, centred (funnel)",
        centred_schools,
        schools(),
        ("mu", "tau", "theta"),
        reference_model=non_centred_schools,
    )


def normal_groups() -> Problem:
    """Return the means of 20 groups with 3000 rows in all, centred, with unknown scales."""
    rng = np.random.default_rng(32)
    group = rng.choice(20, 3000, p=rng.dirichlet(np.full(20, 4.0)))
    effect = rng.normal(2.0, 0.5, 20)
    y = representable(effect[group] + 1.5 * rng.normal(size=3000))
    sites = ("mu", "tau", "sigma", "theta")
    title = "normal hierarchy, 20 groups"
    return Problem(title, normal_groups_model, (y, group, 20), sites)


def gamma_poisson_groups() -> Problem:
    """Return Poisson rates of 200 groups with 2000 rows, whose moments quadrature gives."""
    return gamma_poisson_groups_problem(2000, 2.0)


def schools():
    """Return the effects, their standard errors and the school of each row."""
    effect = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return effect, error, np.arange(8), 8


def correlation_model(y):
    """Multivariate normal rows with an LKJ prior of their correlation matrix."""
    mean = numpyro.sample("mean", dist.Normal(0, 5).expand([4]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(3).expand([4]).to_event(1))
    corr = numpyro.sample("corr", dist.LKJ(4, concentration=2.0))
    covariance = scale[:, None] * corr * scale
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.MultivariateNormal(mean, covariance), obs=y)


def mixture_model(y):
    """Mixture of two normals with ordered means."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(2, 2.0)))
    base = dist.Normal(0, 2).expand([2]).to_event(1)
    ordered = dist.TransformedDistribution(base, transforms.OrderedTransform())
    means = numpyro.sample("means", ordered)
    scales = numpyro.sample("scales", dist.LogNormal(0, 0.5).expand([2]).to_event(1))
    mixing = dist.Categorical(probs=weights)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.MixtureSameFamily(mixing, dist.Normal(means, scales)), obs=y)


def non_centred_schools(effect, error, school, num_schools):
    """Eight schools, with effects as multiples of their spread."""
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    tau = numpyro.sample("tau", dist.HalfNormal(10))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([num_schools]).to_event(1))
    theta = numpyro.deterministic("theta", mu + tau * z)
    with numpyro.plate("data", effect.shape[0]):
        numpyro.sample("effect", dist.Normal(theta[school], error), obs=effect)


def centred_schools(effect, error, school, num_schools):
    """Eight schools, with effects drawn around their mean: a funnel."""
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    tau = numpyro.sample("tau", dist.HalfNormal(10))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([num_schools]).to_event(1))
    with numpyro.plate("data", effect.shape[0]):
        numpyro.sample("effect", dist.Normal(theta[school], error), obs=effect)


def normal_groups_model(y, group, num_groups):
    """Normal rows in groups with normal means."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(3))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([num_groups]).to_event(1))
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Normal(theta[group], sigma), obs=y)


HIERARCHIES = {
    function.__name__: function
    for function in (
        correlation,
        mixture,
        eight_schools,
        normal_groups,
        gamma_poisson_groups,
        funnel,
    )
}
