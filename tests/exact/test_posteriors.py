"""Exact posteriors against quadrature and NumPyro's own densities."""

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density
from posteriors import CASES, FAMILIES, N, pick
from scipy import stats

from sgworld_mcmc import exact


def test_log_prob_is_prior_plus_likelihood_up_to_a_constant(posterior):
    draws = pick(posterior.sample(jax.random.key(3), N), slice(8))

    def joint(position):
        return log_density(posterior.model, posterior.data, {}, position)[0]

    # Traced once under 64 bits: values and gradients of both densities, the exact one as JAX.
    with jax.enable_x64(True):
        theirs, their_gradient = jax.jit(jax.vmap(jax.value_and_grad(joint)))(draws)
        ours, gradient = jax.jit(jax.vmap(jax.value_and_grad(posterior.log_prob)))(draws)
    assert np.ptp(theirs) > 0.1
    assert np.ptp(np.asarray(theirs) - posterior.log_prob(draws)) < 1e-6
    np.testing.assert_allclose(ours, posterior.log_prob(draws), atol=1e-10)
    for site in draws:
        np.testing.assert_allclose(gradient[site], their_gradient[site], rtol=1e-6, atol=1e-8)
    folded = {k: v.reshape((2, 4, *v.shape[1:])) for k, v in draws.items()}
    np.testing.assert_allclose(posterior.log_prob(folded).ravel(), ours, atol=1e-10)


def test_prior_does_not_depend_on_the_rows(posterior):
    # joint(A) + joint(B) - joint(all) is the log prior for every split of the rows into A and B.
    position = {name: np.asarray(value) for name, value in posterior.mean.items()}
    rows = len(posterior.data[0])

    def joint(start, stop):
        data = tuple(array[start:stop] for array in posterior.data)
        return log_density(posterior.model, data, {}, position)[0]

    @jax.jit
    def log_priors():
        return [joint(0, k) + joint(k, rows) - joint(0, rows) for k in (1, rows - 1)]

    with jax.enable_x64(True):
        np.testing.assert_allclose(*log_priors(), atol=1e-8)


@pytest.mark.parametrize(
    "build",
    [
        CASES["gaussian_scalar"],
        lambda: exact.LinearRegression(num_data=5, dim=1),
        CASES["beta"],
        CASES["gamma"],
    ],
)
def test_density_integrates_to_one_and_to_the_moments(build):
    posterior = build()
    centre, sd = posterior.flatten(posterior.mean)[0], posterior.sd[0]
    x, weights = np.polynomial.legendre.leggauss(400)
    x, weights = centre + 14 * sd * x, 14 * sd * weights
    density = np.exp(posterior.log_prob(posterior.unflatten(x[:, None])))
    np.testing.assert_allclose(weights @ density, 1.0, atol=1e-9)
    np.testing.assert_allclose(weights @ (density * x), centre, atol=1e-9 * (1 + abs(centre)))
    np.testing.assert_allclose(weights @ (density * (x - centre) ** 2), sd**2, rtol=1e-8)
    np.testing.assert_allclose(density, posterior.marginal_pdf(posterior.names[0], x), atol=1e-9)


def test_normal_inverse_gamma_integrates_to_one_and_to_the_moments():
    posterior = exact.LinearRegressionUnknownNoise(num_data=40, dim=1, a0=5.0, prior_mean=2.0)
    x, w = np.polynomial.legendre.leggauss(300)
    beta = posterior.mean["beta"][0] + 14 * posterior.sd[0] * x
    log_sigma2 = np.log(posterior.mean["sigma2"]) + 4 * x
    sigma2 = np.exp(log_sigma2)
    weights = (14 * posterior.sd[0] * w)[:, None] * (4 * w * sigma2)[None, :]
    grid = {
        "beta": np.broadcast_to(beta[:, None, None], (300, 300, 1)),
        "sigma2": np.broadcast_to(sigma2[None, :], (300, 300)),
    }
    weights = weights * np.exp(posterior.log_prob(grid))
    flat = posterior.flatten(grid)
    np.testing.assert_allclose(weights.sum(), 1.0, atol=1e-8)
    mean = np.einsum("ij,ijk->k", weights, flat)
    np.testing.assert_allclose(mean, posterior.flatten(posterior.mean), rtol=1e-7)
    centred = flat - mean
    covariance = np.einsum("ij,ijk,ijl->kl", weights, centred, centred)
    np.testing.assert_allclose(covariance, posterior.covariance, rtol=1e-6, atol=1e-9)


def test_linear_algebra_agrees_with_the_textbook_formula():
    posterior = CASES["regression_wide"]()
    X, y = posterior.data
    covariance = np.linalg.inv(X.T @ X + np.eye(5) / 1.5**2)
    np.testing.assert_allclose(posterior.covariance, covariance, atol=1e-12)
    np.testing.assert_allclose(posterior.mean["beta"], covariance @ X.T @ y, atol=1e-12)


def test_nearly_collinear_features_keep_their_digits():
    # X = c (1, 1 + d), prior wide: the normal equations square the condition number 2/d = 2e8 and
    # lose the soft direction, the difference of the coefficients.
    rng = np.random.default_rng(0)
    common, d = rng.normal(size=(200, 1)), 1e-8
    own = rng.normal(size=(200, 1))
    X = np.concatenate([common, common + d * own], axis=1)
    y = X @ [1.0, 2.0]
    posterior = exact.LinearRegression.from_data(X, y, noise_scale=1e-10, prior_scale=100.0)
    np.testing.assert_allclose(posterior.mean["beta"], [1.0, 2.0], atol=6 * posterior.sd.max())
    # The soft direction: what the second feature has beyond the first.
    rest = X[:, 1] - X[:, 0] * (X[:, 0] @ X[:, 1]) / (X[:, 0] @ X[:, 0])
    np.testing.assert_allclose(posterior.sd[1], 1e-10 / np.linalg.norm(rest), rtol=1e-3)


def test_large_draws_match_mean_and_covariance(posterior):
    flat = posterior.flatten(posterior.sample(jax.random.key(5), N))
    centred = flat - posterior.flatten(posterior.mean)
    assert (np.abs(centred.mean(axis=0)) < 4.5 * posterior.sd / np.sqrt(N)).all()
    products = centred[:, :, None] * centred[:, None, :]
    error = products.mean(axis=0) - posterior.covariance
    assert (np.abs(error) < 4.5 * products.std(axis=0) / np.sqrt(N)).all()


def test_draws_follow_the_exact_marginals_and_depend_on_the_key_alone(posterior):
    draws = posterior.sample(jax.random.key(6), N)
    with jax.enable_x64(True):
        again = posterior.sample(jax.random.key(6), N)
    other = posterior.sample(jax.random.key(7), N)
    for site, values in draws.items():
        np.testing.assert_array_equal(values, again[site])
        assert not np.array_equal(values, other[site])
    for name, column in zip(posterior.names, posterior.flatten(draws).T, strict=True):
        p_value = stats.kstest(column, lambda x, name=name: posterior.marginal_cdf(name, x)).pvalue
        assert p_value > 1e-4


def test_marginal_density_is_the_slope_of_the_distribution_function(posterior):
    centre = posterior.flatten(posterior.mean)
    for i, name in enumerate(posterior.names):
        x = centre[i] + posterior.sd[i] * np.array([-1.2, -0.3, 0.8, 2.0])
        step = 1e-5 * posterior.sd[i]
        ends = [posterior.marginal_cdf(name, x + sign * step) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(posterior.marginal_pdf(name, x), slope, rtol=1e-5)


def test_no_density_outside_the_support():
    assert CASES["beta"]().log_prob({"p": np.array([-0.1, 0.0, 1.0, 1.2])}).max() == -np.inf
    assert CASES["gamma"]().log_prob({"rate": -1.0}) == -np.inf
    outside = {"beta": np.zeros(2), "sigma2": np.array(-1.0)}
    assert CASES["unknown_noise"]().log_prob(outside) == -np.inf


@pytest.mark.parametrize("family", FAMILIES)
def test_constructors_agree(family):
    posterior, again = family(), family.simulate(jax.random.key(0))
    other = family(jax.random.key(1))
    rebuilt = family.from_data(*posterior.data)
    flat = posterior.flatten(posterior.mean)
    np.testing.assert_array_equal(flat, again.flatten(again.mean))
    np.testing.assert_allclose(flat, rebuilt.flatten(rebuilt.mean), rtol=1e-12)
    assert not np.allclose(flat, other.flatten(other.mean), rtol=1e-6)
    assert len(posterior.data[0]) == 1000
    assert (np.abs(flat - posterior.flatten(posterior.truth)) < 4.5 * posterior.sd).all()
    assert rebuilt.truth is None
    with jax.enable_x64(True):
        np.testing.assert_array_equal(family().data[-1], posterior.data[-1])


def test_names_and_data_types():
    posterior = exact.LinearRegressionUnknownNoise(num_data=9, dim=2)
    assert posterior.names == ("beta[0]", "beta[1]", "sigma2")
    assert CASES["gaussian_scalar"]().names == ("mu",)
    means = [exact.BetaBernoulli.from_data(np.array([1, 0, 1], kind)).mean["p"] for kind in "?if"]
    assert len(set(map(float, means))) == 1
    assert exact.GammaPoisson.from_data([2.0, 4.0]).data[0].dtype == np.int32
