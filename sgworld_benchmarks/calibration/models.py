"""The models whose samplers are calibrated: parameters are drawn from the prior, data given them.

Each model takes its inputs and then ``y``, which is None where data are to be drawn. The priors are
proper, and none was changed after a sampler had been seen to fail with it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import seed, trace
from numpyro.infer.util import log_likelihood

from sgworld_mcmc.checks import check_choice

__all__ = ["MODELS", "Calibrated", "make_model", "simulate", "statistics_of"]

GROUPS = 8


class Calibrated(NamedTuple):
    """A model with everything but its data.

    Attributes
    ----------
    model
        NumPyro model of (*inputs, y).
    inputs
        Arrays with N rows that are the same for all data sets.
    compared
        Function of one draw's sites that returns a dict of the numbers whose ranks are looked at;
        None for all latent sites.
    """

    model: Callable
    inputs: tuple[np.ndarray, ...]
    compared: Callable | None = None


def simulate(problem: Calibrated, key: jax.Array, count: int) -> tuple[dict, np.ndarray]:
    """Draw parameters from the prior, and data given them.

    Returns
    -------
    dict of str to numpy.ndarray, numpy.ndarray
        The latent sites, (count, ...) each, and the data (count, N).
    """

    def one(key):
        sites = trace(seed(problem.model, key)).get_trace(*problem.inputs, None)
        return {name: s["value"] for name, s in sites.items() if s["type"] == "sample"}

    drawn = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(key, count)))
    y = drawn.pop("y")
    return drawn, y


def statistics_of(problem: Calibrated) -> Callable:
    """Return a compiled function of draws (S, ...) by site and of data, which returns (S, Q).

    Beside the compared numbers there is the log likelihood of all rows: it depends on the data, and
    its ranks notice draws that ignore them (Modrák et al., Bayesian Analysis 2023).
    """

    def one(sites, y):
        numbers = sites if problem.compared is None else problem.compared(sites)
        rows = log_likelihood(problem.model, sites, *problem.inputs, y, batch_ndims=0)["y"]
        named = {**numbers, "log likelihood": rows.sum()}
        return {name: jnp.asarray(x) for name, x in named.items()}

    return jax.jit(jax.vmap(one, in_axes=(0, None)))


def make_model(name: str) -> Calibrated:
    """Return the model of this name with its inputs."""
    check_choice("model", name, tuple(MODELS))
    return MODELS[name](np.random.default_rng(0))


def _design(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.normal(size=(rows, columns)).astype(np.float32)


def _location(rng):
    def model(x, y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(mu + x, 1), obs=y)

    return Calibrated(model, (_design(rng, 100, 1)[:, 0],))


def _regression(rng):
    def model(X, y):
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1))
        with numpyro.plate("rows", len(X)):
            numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)

    return Calibrated(model, (_design(rng, 100, 3),))


def _logistic(rng):
    def model(X, y):
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
        with numpyro.plate("rows", len(X)):
            numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)

    return Calibrated(model, (_design(rng, 200, 3),))


def _poisson(rng):
    def model(X, y):
        alpha = numpyro.sample("alpha", dist.Normal(0, 1))
        beta = numpyro.sample("beta", dist.Normal(0, 0.5).expand([2]).to_event(1))
        with numpyro.plate("rows", len(X)):
            numpyro.sample("y", dist.Poisson(jnp.exp(alpha + X @ beta)), obs=y)

    return Calibrated(model, (_design(rng, 200, 2),))


def _groups() -> np.ndarray:
    return np.repeat(np.arange(GROUPS), 25).astype(np.int32)


def _centred(rng):
    def model(group, y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([GROUPS]).to_event(1))
        with numpyro.plate("rows", len(group)):
            numpyro.sample("y", dist.Normal(theta[group], 1), obs=y)

    return Calibrated(model, (_groups(),))


def _noncentred(rng):
    def model(group, y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
        with numpyro.plate("rows", len(group)):
            numpyro.sample("y", dist.Normal((mu + tau * z)[group], 1), obs=y)

    def compared(sites):
        theta = sites["mu"] + sites["tau"] * sites["z"]
        return {"mu": sites["mu"], "tau": sites["tau"], "theta": theta}

    return Calibrated(model, (_groups(),), compared)


def _mixture(rng):
    def model(x, y):
        share = numpyro.sample("share", dist.Beta(2, 2))
        low = numpyro.sample("low", dist.Normal(0, 2))
        gap = numpyro.sample("gap", dist.LogNormal(1, 0.5))
        means = x[:, None] + jnp.stack([low, low + gap])
        parts = dist.Categorical(probs=jnp.stack([share, 1 - share]))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.MixtureSameFamily(parts, dist.Normal(means, 1)), obs=y)

    return Calibrated(model, (np.zeros(200, np.float32),))


def _student(rng):
    def model(X, y):
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1))
        nu = numpyro.sample("nu", dist.Gamma(2, 0.1))
        with numpyro.plate("rows", len(X)):
            numpyro.sample("y", dist.StudentT(nu, X @ beta, sigma), obs=y)

    return Calibrated(model, (_design(rng, 200, 2),))


def _network(rng):
    def predict(sites, x):
        hidden = jnp.tanh(x[:, None] * sites["inner"][0] + sites["inner"][1])
        return hidden @ sites["outer"]

    def model(x, y):
        inner = numpyro.sample("inner", dist.Normal(0, 1).expand([2, 4]).to_event(2))
        outer = numpyro.sample("outer", dist.Normal(0, 1).expand([4]).to_event(1))
        mean = predict({"inner": inner, "outer": outer}, x)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(mean, 0.3), obs=y)

    points = np.array([-3.0, -1.0, 0.0, 1.0, 3.0], np.float32)
    x = rng.uniform(-2, 2, 100).astype(np.float32)
    return Calibrated(model, (x,), lambda sites: {"prediction": predict(sites, points)})


MODELS: dict[str, Callable] = {
    "location": _location,
    "regression": _regression,
    "logistic": _logistic,
    "poisson": _poisson,
    "centred": _centred,
    "non-centred": _noncentred,
    "mixture": _mixture,
    "student-t": _student,
    "network": _network,
}
