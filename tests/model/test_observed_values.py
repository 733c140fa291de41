"""Observed values outside of the support of their distribution are named before the run."""

import jax
import jax.numpy as jnp
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.model.inspection import minibatch_model
from sgworld_mcmc.model.observed_values import check_observed

pytestmark = pytest.mark.slow

X, Y = models.regression_data()
NUMBERS = np.arange(len(Y))
POSITIVE = np.abs(Y)
COUNTS = np.stack([NUMBERS % 6, 5 - NUMBERS % 6], axis=1)
SHARES = np.random.default_rng(0).dirichlet([2.0, 3.0, 4.0], len(Y))


def model_of(family):
    def model(X, n, y=None):
        b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
        with numpyro.plate("rows", len(X)):
            numpyro.sample("obs", family(jnp.exp(X @ b), n), obs=y)

    return model


def check(family, y, n=5):
    """Do what a run does before its first evaluation of the model."""
    args = (X, n, y)
    found = minibatch_model(model_of(family), args, {})
    arrays = {k: v for k, v in zip("Xny", args, strict=True) if isinstance(v, np.ndarray)}
    check_observed({k: s.values for k, s in found.sites.items() if s.values}, arrays)


FAMILIES = {
    "Bernoulli": lambda rate, n: dist.Bernoulli(logits=rate),
    "Categorical": lambda rate, n: dist.Categorical(logits=rate[:, None] * jnp.arange(4)),
    "OrderedLogistic": lambda rate, n: dist.OrderedLogistic(rate, jnp.arange(3.0)),
    "Poisson": lambda rate, n: dist.Poisson(rate),
    "Binomial": lambda rate, n: dist.Binomial(n, logits=rate),
    "Exponential": lambda rate, n: dist.Exponential(rate),
    "Beta": lambda rate, n: dist.Beta(rate, 2.0),
    "masked": lambda rate, n: dist.Bernoulli(logits=rate).mask(rate > 0),
    "VonMises": lambda rate, n: dist.VonMises(rate, 1.0),
    "Normal": lambda rate, n: dist.Normal(rate, 1.0),
    "Multinomial": lambda rate, n: dist.Multinomial(n, jnp.stack([rate, 1 + rate], -1)),
    "Dirichlet": lambda rate, n: dist.Dirichlet(jnp.stack([rate, 1 + rate, rate], -1)),
    "Uniform": lambda rate, n: dist.Uniform(-rate, 10 * rate),
}


@pytest.mark.parametrize(
    ("family", "y", "message"),
    [
        ("Bernoulli", NUMBERS % 2 + 1, "101 of 203 are not 0 or 1 .*row 1.*count from 1.* y - 1"),
        ("Bernoulli", NUMBERS % 2 * 2 - 1, r"Pass \(y \+ 1\) / 2"),
        ("Bernoulli", NUMBERS % 2 / 2, "not 0 or 1"),
        ("Categorical", NUMBERS % 4 + 1, "whole numbers from 0 to 3 .* y - 1"),
        ("Categorical", NUMBERS % 9, "range from 0 to 8"),
        ("OrderedLogistic", NUMBERS % 4 + 1, "`y`.*OrderedLogistic.* y - 1"),
        ("Poisson", NUMBERS - 3, "3 of 203 are not whole numbers of at least 0"),
        ("Poisson", NUMBERS / 2, "not whole numbers"),
        ("Binomial", NUMBERS % 7, "whole numbers within their bounds"),
        ("Exponential", np.floor(POSITIVE), "not numbers above 0"),
        ("Beta", 1.5 * POSITIVE / POSITIVE.max(), "not numbers from 0.0 to 1.0"),
        ("VonMises", 10 * Y, "not numbers from -3.14"),
        (
            "Multinomial",
            COUNTS + (COUNTS == 3),
            r"sum to their totals .*\[2 4\] in row 2.* from 5 to 6",
        ),
        ("Dirichlet", SHARES.round(2), r"shares above zero .*Divide each by its sum: y / y.sum"),
        ("Dirichlet", 100 * SHARES, "203 of 203 are not shares"),
        (
            "Dirichlet",
            np.where(NUMBERS[:, None] == 9, [0, 0.4, 0.6], SHARES),
            "row 9.* small value",
        ),
    ],
)
def test_values_outside_of_the_support_are_named(family, y, message):
    with pytest.raises(ValueError, match=message):
        check(FAMILIES[family], y)


@pytest.mark.parametrize(
    ("family", "y"),
    [
        ("Bernoulli", NUMBERS % 2),
        ("Bernoulli", NUMBERS % 2 == 0),
        ("Bernoulli", (NUMBERS % 2).astype(np.float32)),
        ("Categorical", NUMBERS % 4),
        ("OrderedLogistic", NUMBERS % 3),
        ("Poisson", NUMBERS % 9),
        ("Poisson", (NUMBERS % 9).astype(np.float32)),
        ("Binomial", NUMBERS % 6),
        ("Exponential", POSITIVE),
        ("Beta", POSITIVE / (POSITIVE.max() + 1)),
        ("masked", NUMBERS % 3),
        ("VonMises", Y % 3),
        ("Multinomial", COUNTS),
        ("Dirichlet", SHARES),
        ("Dirichlet", SHARES.astype(np.float32)),
        ("Normal", Y),
        ("Uniform", Y),  # bounds that follow from parameters are not known before the run
    ],
)
def test_ordinary_values_pass(family, y):
    check(FAMILIES[family], y)


def test_bounds_that_are_an_argument_are_those_of_their_row():
    trials = NUMBERS % 5 + 1
    check(FAMILIES["Binomial"], trials, trials)
    with pytest.raises(ValueError, match=r"Binomial, cannot have: 1 of 203 .* within their bounds"):
        check(FAMILIES["Binomial"], trials + (NUMBERS == 7), trials)


def test_a_run_names_site_and_argument_and_forgotten_observations():
    mcmc = SGWORLD(model_of(FAMILIES["Bernoulli"]))
    with pytest.raises(ValueError, match=r"Site 'obs' observes values of `y` .* pass y - 1"):
        mcmc.run(jax.random.key(0), X, 1, NUMBERS % 2 + 1)
    with pytest.raises(ValueError, match="`y` is None, so that the model observes no data there"):
        mcmc.run(jax.random.key(0), X, 1)


def test_one_column_for_each_class_is_named_with_the_cure():
    def model(X, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([2, 3]).to_event(2))
        with numpyro.plate("rows", len(X)):
            numpyro.sample("y", dist.Categorical(logits=X[:, :2] @ w), obs=y)

    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"site 'y' observes .* pass y.argmax\(-1\)"):
        SGWORLD(model).run(jax.random.key(0), rng.normal(size=(40, 2)), np.eye(3)[NUMBERS[:40] % 3])
