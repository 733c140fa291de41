"""Regressions without a closed form, whose references are stored runs of NUTS."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms

from sgworld_benchmarks.accuracy.problem import Problem, representable

__all__ = ["REGRESSIONS", "rare_events_problem", "student_t_problem"]


def logistic() -> Problem:
    """Return a logistic regression of moderate size."""
    rng = np.random.default_rng(10)
    X = representable(rng.normal(size=(600, 8)) @ (np.eye(8) + 0.4))
    y = bernoulli(rng, X @ rng.normal(0, 0.4, 8))
    return Problem("logistic regression", logistic_model, (X, y), ("beta",))


def logistic_factor() -> Problem:
    """Return a logistic regression whose prior, a `numpyro.factor`, has a peak and log tails."""
    rng = np.random.default_rng(11)
    X = representable(rng.normal(size=(250, 6)))
    y = bernoulli(rng, X @ [1.5, -1.0, 0.0, 0.0, 0.0, 0.3])
    return Problem("prior by numpyro.factor", factor_model, (X, y), ("beta",))


def rare_events() -> Problem:
    """Return a logistic regression with about 25 events in 20 000 rows."""
    return rare_events_problem(20_000, -7.2)


def rare_events_problem(num_data: int, intercept: float, seed: int = 12) -> Problem:
    """Return a logistic regression with few events; two features are rare indicators themselves."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_data, 5))
    X[:, 3:] = rng.random((num_data, 2)) < [0.05, 0.02]
    X = representable(X)
    y = bernoulli(rng, intercept + X @ [0.8, -0.5, 0.0, 1.5, 1.0])
    title = f"rare events, {int(y.sum())} of {num_data}"
    return Problem(title, rare_model, (X, y), ("intercept", "beta"))


def poisson() -> Problem:
    """Return a Poisson regression with a log link."""
    rng = np.random.default_rng(13)
    X = representable(rng.normal(size=(400, 4)))
    y = rng.poisson(np.exp(0.2 + X @ [0.5, -0.3, 0.2, 0.0])).astype(float)
    return Problem("Poisson regression", poisson_model, (X, y), ("intercept", "beta"))


def negative_binomial() -> Problem:
    """Return a negative binomial regression with unknown concentration."""
    rng = np.random.default_rng(14)
    X = representable(rng.normal(size=(300, 3)))
    rate = np.exp(1.0 + X @ [0.4, -0.2, 0.0]) * rng.gamma(1.5, 1 / 1.5, 300)
    y = rng.poisson(rate).astype(float)
    sites = ("intercept", "beta", "concentration")
    return Problem("negative binomial regression", negative_binomial_model, (X, y), sites)


def gamma_regression() -> Problem:
    """Return a gamma regression with unknown shape and few rows."""
    rng = np.random.default_rng(15)
    X = representable(rng.normal(size=(40, 2)))
    y = representable(rng.gamma(2.0, np.exp(0.5 + X @ [0.6, -0.4]) / 2.0))
    return Problem("gamma regression", gamma_model, (X, y), ("intercept", "beta", "shape"))


def student_t() -> Problem:
    """Return a regression with Student-t errors of unknown degrees of freedom."""
    return student_t_problem(500, 4)


def student_t_problem(num_data: int, dim: int, df: float = 5.0, seed: int = 16) -> Problem:
    """Return a regression with Student-t errors of unknown scale and df (truth: ``df``)."""
    rng = np.random.default_rng(seed)
    X = representable(rng.normal(size=(num_data, dim)))
    y = representable(X @ rng.normal(size=dim) + 0.8 * rng.standard_t(df, num_data))
    sites = ("beta", "sigma", "df")
    return Problem("Student-t regression, unknown df", student_t_model, (X, y), sites)


def heteroscedastic() -> Problem:
    """Return a regression in which the scale of the errors depends on the features too."""
    rng = np.random.default_rng(17)
    X = representable(rng.normal(size=(400, 3)))
    scale = np.exp(-0.3 + X @ [0.5, 0.0, -0.3])
    y = representable(X @ [1.0, -1.0, 0.5] + scale * rng.normal(size=400))
    title = "heteroscedastic regression"
    return Problem(title, heteroscedastic_model, (X, y), ("beta", "log_scale", "gamma"))


def softmax() -> Problem:
    """Return a softmax regression of three classes against the first."""
    rng = np.random.default_rng(18)
    X = representable(rng.normal(size=(300, 3)))
    logits = X @ np.array([[0.0, 1.0, -0.5], [0.0, 0.0, 0.8], [0.0, -0.7, 0.0]])
    y = np.argmax(logits + rng.gumbel(size=(300, 3)), 1)
    return Problem("softmax regression", softmax_model, (X, y), ("weights",))


def ordinal() -> Problem:
    """Return an ordinal regression with ordered cutpoints."""
    rng = np.random.default_rng(19)
    X = representable(rng.normal(size=(300, 3)))
    latent = X @ [0.8, -0.5, 0.0] + rng.logistic(size=300)
    y = np.digitize(latent, [-1.5, 0.0, 2.5])
    return Problem("ordered cutpoints", ordinal_model, (X, y), ("beta", "cutpoints"))


def calendar_poisson() -> Problem:
    """Return counts with a log-linear trend in the raw calendar year."""
    rng = np.random.default_rng(20)
    year = rng.integers(1950, 2024, 200).astype(float)
    y = rng.poisson(np.exp(1.0 - 0.01 * (year - 1990))).astype(float)
    title = "calendar year, counts"
    return Problem(
        title, year_model, (year, y), ("intercept", "slope"), reference_model=centred_year_model
    )


def bernoulli(rng, logits):
    """Draw outcomes 0.0 or 1.0."""
    return (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(float)


def normal_vector(name, dim, scale):
    """Sample a latent vector with independent normal priors."""
    return numpyro.sample(name, dist.Normal(0, scale).expand([dim]).to_event(1))


def logistic_model(X, y):
    """Logistic regression, N(0, 2) priors."""
    beta = normal_vector("beta", X.shape[1], 2.0)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


def factor_model(X, y):
    """Logistic regression whose prior is a ``numpyro.factor``."""
    flat = dist.ImproperUniform(constraints.real_vector, (), (X.shape[1],))
    beta = numpyro.sample("beta", flat)
    numpyro.factor("peaked", -1.5 * jnp.log1p((beta / 0.3) ** 2).sum())
    numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


def rare_model(X, y):
    """Logistic regression with an intercept."""
    intercept = numpyro.sample("intercept", dist.Normal(0, 10))
    beta = normal_vector("beta", X.shape[1], 2.5)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=intercept + X @ beta), obs=y)


def poisson_model(X, y):
    """Poisson regression with a log link."""
    intercept = numpyro.sample("intercept", dist.Normal(0, 5))
    beta = normal_vector("beta", X.shape[1], 1.0)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(intercept + X @ beta)), obs=y)


def negative_binomial_model(X, y):
    """Negative binomial regression, concentration unknown."""
    intercept = numpyro.sample("intercept", dist.Normal(0, 5))
    beta = normal_vector("beta", X.shape[1], 1.0)
    concentration = numpyro.sample("concentration", dist.Exponential(0.5))
    mean = jnp.exp(intercept + X @ beta)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.NegativeBinomial2(mean, concentration), obs=y)


def gamma_model(X, y):
    """Gamma regression with a log link, shape unknown."""
    intercept = numpyro.sample("intercept", dist.Normal(0, 5))
    beta = normal_vector("beta", X.shape[1], 1.0)
    shape = numpyro.sample("shape", dist.HalfNormal(5.0))
    mean = jnp.exp(intercept + X @ beta)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Gamma(shape, shape / mean), obs=y)


def student_t_model(X, y):
    """Linear regression with Student-t errors, scale and degrees of freedom unknown."""
    beta = normal_vector("beta", X.shape[1], 5.0)
    sigma = numpyro.sample("sigma", dist.HalfNormal(5.0))
    df = numpyro.sample("df", dist.Gamma(2.0, 0.1))
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.StudentT(df, X @ beta, sigma), obs=y)


def heteroscedastic_model(X, y):
    """Linear regression whose errors' log scale is linear too."""
    beta = normal_vector("beta", X.shape[1], 5.0)
    log_scale = numpyro.sample("log_scale", dist.Normal(0, 2))
    gamma = normal_vector("gamma", X.shape[1], 1.0)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Normal(X @ beta, jnp.exp(log_scale + X @ gamma)), obs=y)


def softmax_model(X, y):
    """Softmax regression."""
    prior = dist.Normal(0, 2).expand([X.shape[1], 2]).to_event(2)
    weights = numpyro.sample("weights", prior)
    logits = jnp.concatenate([jnp.zeros((X.shape[0], 1)), X @ weights], 1)
    with numpyro.plate("data", X.shape[0]):
        numpyro.sample("y", dist.Categorical(logits=logits), obs=y)


def ordinal_model(X, y):
    """Ordered logistic regression."""
    beta = normal_vector("beta", X.shape[1], 2.0)
    base = dist.Normal(0, 2).expand([3]).to_event(1)
    ordered = dist.TransformedDistribution(base, transforms.OrderedTransform())
    cutpoints = numpyro.sample("cutpoints", ordered)
    with numpyro.plate("data", X.shape[0]):
        numpyro.sample("y", dist.OrderedLogistic(X @ beta, cutpoints), obs=y)


def year_model(year, y):
    """Poisson regression on a calendar year."""
    intercept = numpyro.sample("intercept", dist.Normal(0, 100))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(intercept + slope * year)), obs=y)


def centred_year_model(year, y):
    """Poisson regression on a calendar year less a constant, the same posterior."""
    level = numpyro.sample("level", dist.ImproperUniform(constraints.real, (), ()))
    slope = numpyro.sample("slope", dist.Normal(0, 1))
    intercept = numpyro.deterministic("intercept", level - 1990 * slope)
    numpyro.factor("prior", dist.Normal(0, 100).log_prob(intercept))
    numpyro.sample("y", dist.Poisson(jnp.exp(level + slope * (year - 1990))), obs=y)


REGRESSIONS = {
    function.__name__: function
    for function in (
        logistic,
        logistic_factor,
        rare_events,
        poisson,
        negative_binomial,
        gamma_regression,
        student_t,
        heteroscedastic,
        softmax,
        ordinal,
        calendar_poisson,
    )
}
