"""NumPyro models and data that several test files use."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

N = 203  # no multiple of any batch size used


@functools.cache
def regression_data() -> tuple[np.ndarray, np.ndarray]:
    """Features (203, 3) and responses (203,), float32."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, 3))
    y = X @ np.array([1.0, -0.5, 0.2]) + 0.5 * rng.normal(size=N)
    return X.astype(np.float32), y.astype(np.float32)


def _coefficients():
    return numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))


def plated(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(X @ b, s), obs=y)


def plateless(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(X @ b, s), obs=y)


def one_event(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(X @ b, s).to_event(1), obs=y)


def subsampled(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.plate("data", X.shape[0], subsample_size=20):
        features, response = numpyro.subsample(X, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("y", dist.Normal(features @ b, s), obs=response)


def subsampled_by_index(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.plate("data", N, subsample_size=20) as index:
        numpyro.sample("y", dist.Normal(jnp.asarray(X)[index] @ b, s), obs=jnp.asarray(y)[index])


def written_size(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.plate("data", N):
        numpyro.sample("y", dist.Normal(X @ b, s), obs=y)


def tempered(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.handlers.scale(scale=0.3), numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(X @ b, s), obs=y)


def with_factors(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    numpyro.factor("penalty", -jnp.abs(b).sum())
    numpyro.factor("likelihood", dist.Normal(X @ b, s).log_prob(y))


def factor_only_sum(X, y):
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    numpyro.factor("likelihood", dist.Normal(X @ b, s).log_prob(y).sum())


def with_summary(X, y, previous):
    """An observation that is no row of the data: the mean of an earlier study."""
    b, s = _coefficients(), numpyro.sample("s", dist.HalfNormal(1))
    numpyro.sample("previous", dist.Normal(b, 0.1).to_event(1), obs=previous)
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(X @ b, s), obs=y)


def dynamic_support(X, y):
    b = _coefficients()
    low = numpyro.sample("low", dist.Uniform(0.1, 0.4))
    s = numpyro.sample("s", dist.Uniform(low, 2.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(X @ b, s), obs=y)


MODELS = [
    plated,
    plateless,
    one_event,
    subsampled,
    subsampled_by_index,
    written_size,
    tempered,
    with_factors,
    factor_only_sum,
    dynamic_support,
]


def gaussian(y):
    """One dimension, compiled fast: for tests of the machinery."""
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)
