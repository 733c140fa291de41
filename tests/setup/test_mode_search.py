"""The search for the mode where derivatives are not finite on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.setup.curvature import dense_scale

RNG = np.random.default_rng(4)
X = RNG.normal(size=250)
Y = np.maximum(0.5 + X + RNG.normal(size=250), 0.0)


def censored(x, y):
    """The gradient of the branch that is not taken is NaN where its probability underflows."""
    a, b = numpyro.sample("a", dist.Normal(0, 2)), numpyro.sample("b", dist.Normal(0, 2))
    normal = dist.Normal(a + b * x, numpyro.sample("sigma", dist.HalfNormal(2)))
    terms = jnp.where(y > 0, normal.log_prob(y), jnp.log(normal.cdf(0.0)))
    numpyro.factor("likelihood", terms.sum())


@pytest.mark.slow
def test_derivatives_that_are_nan_far_away_do_no_harm():
    def potential(theta):
        a, b, s = theta
        normal = scipy.stats.norm(a + b * X, np.exp(s))
        terms = np.where(Y > 0, normal.logpdf(Y), normal.logcdf(0))
        prior = scipy.stats.norm.logpdf([a, b], 0, 2).sum() - np.exp(2 * s) / 8 + s
        return -terms.sum() - prior

    expected = scipy.optimize.minimize(potential, np.zeros(3), tol=1e-10).x
    plan = SGWORLD(censored).set_up(jax.random.key(0), X, Y)
    assert plan.fit.converged
    np.testing.assert_allclose(plan.fit.coordinates.center, expected, atol=1e-3)


def test_a_hessian_that_is_not_finite_says_nothing():
    coordinates, indefinite = dense_scale(np.array([[1.0, np.nan], [np.nan, 1.0]]))
    np.testing.assert_array_equal(coordinates.covariance(), np.eye(2))
    assert indefinite == 2


def test_a_mode_of_all_rows_to_which_that_of_a_part_is_no_guide():
    """A few far values, in a part of the rows or not, decide how the noise depends on them."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((40_000, 3))
    x[:, 1] = rng.standard_t(2.2, 40_000)
    noise = np.exp(0.5 + 0.3 * x[:, 0] + 0.2 * np.clip(x[:, 1], -8, 8))
    y = x @ [1.0, 2.0, -1.0] + noise * rng.standard_normal(40_000)

    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0, 5).expand([3]).to_event(1))
        g = numpyro.sample("g", dist.Normal(0, 1).expand([3]).to_event(1))
        a = numpyro.sample("a", dist.Normal(0, 5))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(x @ b, jnp.exp(a + x @ g)), obs=y)

    mcmc = SGWORLD(model)
    plan = mcmc.set_up(jax.random.key(0), x, y)
    assert plan.kinetic is None and plan.fit.converged and not plan.fit.indefinite

    def potential(z):
        a, b, g = z[0], z[1:4], z[4:]
        log_sd = a + x @ g
        rows = log_sd + 0.5 * ((y - x @ b) / jnp.exp(log_sd)) ** 2
        return rows.sum() + (a**2 / 25 + b @ b / 25 + g @ g) / 2

    with jax.enable_x64(True):
        z = jnp.asarray(plan.fit.coordinates.center)
        gradient, hessian = jax.grad(potential)(z), jax.hessian(potential)(z)
        step = np.linalg.solve(hessian, gradient)
        assert np.sqrt(step @ gradient) < 0.05
