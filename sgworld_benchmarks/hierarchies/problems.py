"""Models with thousands of latents by group, and data that they have made."""

from collections.abc import Callable

import numpy as np
import numpyro
import numpyro.distributions as dist

__all__ = ["PROBLEMS"]


def intercepts(size: int, groups: int, features: int = 5, seed: int = 0):
    """Return a logistic regression with an intercept for each group, non-centred, and its data."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(size, features)).astype(np.float32)
    group = rng.integers(0, groups, size).astype(np.int32)
    logits = (0.8 * rng.normal(size=groups) - 0.5)[group] + X @ (0.5 * rng.normal(size=features))
    return intercepts_model, (X, group, _bernoulli(rng, logits), groups)


def centred(size: int, groups: int, features: int = 5, seed: int = 0):
    """Return the same with the intercepts themselves as latents."""
    return centred_model, intercepts(size, groups, features, seed)[1]


def slopes(size: int, groups: int, seed: int = 0):
    """Return a logistic regression with correlated intercepts and slopes by group, and its data."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=size).astype(np.float32)
    group = rng.integers(0, groups, size).astype(np.int32)
    lower = np.linalg.cholesky([[0.64, -0.2], [-0.2, 0.25]])
    own = np.array([-0.5, 0.7]) + rng.normal(size=(groups, 2)) @ lower.T
    y = _bernoulli(rng, own[group, 0] + own[group, 1] * x)
    return slopes_model, (x, group, y, groups)


def student_slopes(size: int, groups: int, seed: int = 0):
    """Return a regression with heavy tails and an intercept and slope for each group."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=size).astype(np.float32)
    group = rng.integers(0, groups, size).astype(np.int32)
    own = np.array([1.0, -0.5]) + np.array([0.7, 0.3]) * rng.normal(size=(groups, 2))
    y = own[group, 0] + own[group, 1] * x + 0.8 * rng.standard_t(4, size)
    return student_model, (x, group, y.astype(np.float32), groups)


def uneven(size: int, groups: int, seed: int = 0):
    """Return centred intercepts of groups whose sizes run from one row to size / 32."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(1, size / 32, groups)
    group = rng.choice(groups, size, p=sizes / sizes.sum()).astype(np.int32)
    X = rng.normal(size=(size, 3)).astype(np.float32)
    logits = (0.8 * rng.normal(size=groups) - 0.5)[group] + X @ np.array([0.5, -0.3, 0.2])
    return centred_model, (X, group, _bernoulli(rng, logits), groups)


def crossed(size: int, groups: int, seed: int = 0):
    """Return a normal model with two crossed groupings, the second of a third as many levels."""
    rng = np.random.default_rng(seed)
    others = groups // 3
    first = rng.integers(0, groups, size).astype(np.int32)
    second = rng.integers(0, others, size).astype(np.int32)
    mean = 0.3 + 0.7 * rng.normal(size=groups)[first] + 0.5 * rng.normal(size=others)[second]
    y = (mean + rng.normal(size=size)).astype(np.float32)
    return crossed_model, (first, second, y, groups, others)


# The function that makes a problem, its numbers of rows and of groups. The constants of the set-up
# were chosen while looking at the first seven; the others came afterwards.
PROBLEMS: dict[str, tuple[Callable, int, int]] = {
    "intercepts": (intercepts, 100_000, 1000),
    "centred": (centred, 100_000, 1000),
    "intercepts-1e6": (intercepts, 1_000_000, 1000),
    "intercepts-1e6-5000": (intercepts, 1_000_000, 5000),
    "centred-1e6-5000": (centred, 1_000_000, 5000),
    "slopes": (slopes, 100_000, 1000),
    "crossed": (crossed, 75_000, 3000),
    "ten-rows": (intercepts, 50_000, 5000),
    "uneven": (uneven, 320_000, 500),
    "student-slopes": (student_slopes, 100_000, 2000),
    "intercepts-1e7-20000": (intercepts, 10_000_000, 20_000),
}


def _bernoulli(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    return (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def intercepts_model(X, group, y, groups):
    """Logistic regression with non-centred intercepts."""
    mu = numpyro.sample("mu", dist.Normal(0, 1.5))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([groups]).to_event(1))
    with numpyro.plate("rows", len(y)):
        logits = (mu + tau * z)[group] + X @ beta
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def centred_model(X, group, y, groups):
    """Logistic regression with centred intercepts."""
    mu = numpyro.sample("mu", dist.Normal(0, 1.5))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    intercept = numpyro.sample("intercept", dist.Normal(mu, tau).expand([groups]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=intercept[group] + X @ beta), obs=y)


def slopes_model(x, group, y, groups):
    """Logistic regression with correlated intercepts and slopes."""
    mu = numpyro.sample("mu", dist.Normal(0, 1.5).expand([2]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    lower = numpyro.sample("lower", dist.LKJCholesky(2, 2.0))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([groups, 2]).to_event(2))
    own = mu + z @ (sd[:, None] * lower).T
    with numpyro.plate("rows", len(y)):
        logits = own[group, 0] + own[group, 1] * x
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def student_model(x, group, y, groups):
    """Intercepts and slopes by group, non-centred, under Student-t errors."""
    mu = numpyro.sample("mu", dist.Normal(0, 2).expand([2]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    nu = numpyro.sample("nu", dist.Gamma(2.0, 0.1))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([groups, 2]).to_event(2))
    own = mu + sd * z
    with numpyro.plate("rows", len(y)):
        mean = own[group, 0] + own[group, 1] * x
        numpyro.sample("y", dist.StudentT(nu, mean, sigma), obs=y)


def crossed_model(first, second, y, groups, others):
    """Normal rows with two crossed groupings, non-centred."""
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    s1 = numpyro.sample("s1", dist.HalfNormal(1.0))
    s2 = numpyro.sample("s2", dist.HalfNormal(1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    u = numpyro.sample("u", dist.Normal(0, 1).expand([groups]).to_event(1))
    v = numpyro.sample("v", dist.Normal(0, 1).expand([others]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu + s1 * u[first] + s2 * v[second], sigma), obs=y)
