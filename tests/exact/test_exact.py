"""Exact posteriors against quadrature, NumPyro's own densities and closed-form distances."""

import inspect
import itertools
import json

import arviz as az
import jax
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from scipy import integrate, stats

from sgworld_mcmc import exact
from sgworld_mcmc.exact.compare import compare
from sgworld_mcmc.exact.marginal import wasserstein_distance, wasserstein_noise

COVARIANCE = [[2.0, 0.9], [0.9, 1.0]]
CASES = {
    "gaussian_scalar": lambda: exact.GaussianMean.from_data([1.0, 2.5, 3.0], noise_scale=2.0),
    "gaussian_vector": lambda: exact.GaussianMean(
        num_data=40, dim=2, noise_scale=[0.5, 2.0], prior_mean=1.0, prior_scale=[0.3, 3.0]
    ),
    "gaussian_covariance": lambda: exact.GaussianMean(
        num_data=40, dim=2, noise_covariance=COVARIANCE
    ),
    "regression": lambda: exact.LinearRegression(
        num_data=50, dim=3, correlation=0.8, noise_scale=0.7, prior_mean=[1.0, 0.0, -1.0]
    ),
    "regression_wide": lambda: exact.LinearRegression(num_data=3, dim=5, prior_scale=1.5),
    "unknown_noise": lambda: exact.LinearRegressionUnknownNoise(
        num_data=30, dim=2, correlation=0.5, noise_scale=2.0, a0=3.0, b0=2.0, prior_mean=0.5
    ),
    "beta": lambda: exact.BetaBernoulli(num_data=20, a0=2.0, b0=3.0),
    "gamma": lambda: exact.GammaPoisson(num_data=15, a0=1.5, b0=0.5),
}
# One number of draws nearly everywhere, so that each sampler compiles once.
N = 20_000
FAMILIES = [
    exact.GaussianMean,
    exact.LinearRegression,
    exact.LinearRegressionUnknownNoise,
    exact.BetaBernoulli,
    exact.GammaPoisson,
]


@pytest.fixture(scope="module", params=list(CASES))
def posterior(request):
    return CASES[request.param]()


def pick(draws, i):
    return {name: value[i] for name, value in draws.items()}


# Exact quantities


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


# Distances


@pytest.mark.parametrize("name", ["gaussian_scalar", "unknown_noise", "beta", "gamma"])
def test_wasserstein_distance_is_the_area_between_the_distribution_functions(name):
    posterior = CASES[name]()
    rng = np.random.default_rng(1)
    for parameter in posterior.names:
        marginal = posterior.marginal(parameter)
        # Few draws, displaced, one of them far out: every branch of the closed form is used.
        draws = marginal.distribution.rvs(7, random_state=rng) + 0.5 * marginal.distribution.std()
        draws[0] = marginal.distribution.mean() + 8 * marginal.distribution.std()
        low, high = marginal.distribution.ppf([1e-13, 1 - 1e-13])
        # np.unique: breakpoints of the empirical distribution function, where the integrand jumps.
        ends = np.unique(np.concatenate([[low], np.sort(draws), [high]]))
        area = 0.0
        for a, b in itertools.pairwise(ends):
            nodes = np.linspace(a, b, 4001)
            empirical = (draws <= (a + b) / 2).mean()
            area += np.trapezoid(np.abs(empirical - marginal.distribution.cdf(nodes)), nodes)
        found = wasserstein_distance(marginal, draws)
        assert found == pytest.approx(area, rel=1e-5)
        variance = integrate.quad(
            lambda t, m=marginal: m.stein_kernel(np.array(t)) * m.distribution.pdf(t), low, high
        )[0]
        assert variance == pytest.approx(marginal.distribution.var(), rel=1e-5)


@pytest.mark.parametrize("name", ["gaussian_scalar", "unknown_noise", "gamma"])
def test_noise_level_of_the_wasserstein_distance(name):
    posterior = CASES[name]()
    marginal = posterior.marginal(posterior.names[-1])
    draws = marginal.distribution.rvs((300, 400), random_state=np.random.default_rng(2))
    scaled = [20 * wasserstein_distance(marginal, row) for row in draws]
    error = np.std(scaled) / np.sqrt(300)
    # 1 % for the O(1/sqrt(n)) correction to the limit.
    level = wasserstein_noise(marginal)
    assert abs(np.mean(scaled) - level) < 4 * error + 0.01 * level


def test_noise_level_of_kl_and_ks():
    posterior = CASES["regression"]()
    root = np.linalg.cholesky(posterior.covariance)
    white = np.random.default_rng(3).normal(size=(200, 500, 3))
    runs = [compare(posterior, {"beta": posterior.mean["beta"] + z @ root.T}) for z in white[:60]]
    kl = np.array([posterior.gaussian_kl(posterior.mean["beta"] + z @ root.T) for z in white])
    # (D + D(D+1)/2) / (2n) = 0.009; 3 % for the next order in 1/n.
    assert abs(kl.mean() - 0.009) < 4 * kl.std() / np.sqrt(200) + 0.03 * 0.009
    assert np.mean([r.kl_noise for r in runs]) == pytest.approx(0.009, rel=0.1)
    ks = np.array([r.ks.mean() for r in runs])
    noise = np.mean([r.ks_noise for r in runs])
    assert abs(ks.mean() - noise) < 4 * ks.std() / np.sqrt(60) + 0.02 * noise


def test_exact_draws_show_no_error(posterior):
    result = posterior.compare(posterior.sample(jax.random.key(9), N))
    assert (np.abs(result.mean_error) < 4.5 * result.mean_error_se).all()
    assert (np.abs(result.sd_ratio - 1) < 4.5 * result.sd_ratio_se).all()
    assert (result.ks < 2.6 * result.ks_noise).all()
    assert (result.wasserstein < 3.5 * result.wasserstein_noise).all()
    assert (np.abs(result.ess / N - 1) < 0.2).all()
    gaussian = isinstance(posterior, exact.GaussianMean | exact.LinearRegression)
    assert (result.kl is not None) == gaussian
    if gaussian:
        assert 0 <= result.kl < 5 * result.kl_noise


@pytest.mark.parametrize("family", FAMILIES)
def test_shifted_and_widened_draws_are_found(family):
    posterior = family(num_data=200)
    flat = posterior.flatten(posterior.sample(jax.random.key(10), N))
    centre = posterior.flatten(posterior.mean)
    clean = posterior.compare(posterior.unflatten(flat))
    result = posterior.compare(
        posterior.unflatten(centre + 1.05 * (flat - centre) + 0.1 * posterior.sd)
    )
    # The very draws are changed, so the response is exact; only its size needs error bars.
    np.testing.assert_allclose(result.mean_error, 1.05 * clean.mean_error + 0.1, atol=1e-10)
    np.testing.assert_allclose(result.sd_ratio, 1.05 * clean.sd_ratio, rtol=1e-10)
    assert (np.abs(result.mean_error) > 5 * result.mean_error_se).all()
    assert (np.abs(result.sd_ratio - 1) > 3 * result.sd_ratio_se).all()
    assert (result.ks > 3 * result.ks_noise).all()
    assert (result.wasserstein > 3 * result.wasserstein_noise).all()
    assert str(result).count("*") >= 2 * len(posterior.names)


def test_distances_of_a_shifted_gaussian_have_their_closed_form():
    posterior = CASES["regression"]()
    draws = posterior.sample(jax.random.key(11), N)["beta"]
    shift = np.array([0.5, 0.0, -0.25]) * posterior.sd
    result = posterior.compare({"beta": draws + shift})
    np.testing.assert_allclose(result.wasserstein[[0, 2]], [0.5, 0.25], atol=4.5 / np.sqrt(N))
    ks = 2 * stats.norm.cdf(np.array([0.25, 0.125])) - 1
    np.testing.assert_allclose(result.ks[[0, 2]], ks, atol=2.2 / np.sqrt(N))
    kl = 0.5 * shift @ np.linalg.solve(posterior.covariance, shift)
    # The white mean has error 1/sqrt(n) along the shift, whose white length is sqrt(2 kl).
    assert abs(result.kl - kl) < 4.5 * np.sqrt(2 * kl / N) + 5 * result.kl_noise
    wide = posterior.compare({"beta": posterior.mean["beta"] + 1.3 * (draws - draws.mean(axis=0))})
    expected = 3 * (0.5 * (1.3**2 - 1) - np.log(1.3))
    assert wide.kl == pytest.approx(expected, rel=0.05)


def test_error_bars_of_correlated_draws():
    posterior = CASES["gaussian_scalar"]()
    rho, chains, draws = 0.8, 4, 20_000
    rng = np.random.default_rng(4)
    z = np.empty((chains, draws))
    z[:, 0] = rng.normal(size=chains)
    noise = np.sqrt(1 - rho**2) * rng.normal(size=(chains, draws))
    for k in range(1, draws):
        z[:, k] = rho * z[:, k - 1] + noise[:, k]
    result = posterior.compare({"mu": posterior.mean["mu"] + posterior.sd[0] * z})
    total = chains * draws
    mean_se = np.sqrt((1 + rho) / (1 - rho) / total)
    sd_se = np.sqrt((1 + rho**2) / (1 - rho**2) / (2 * total))
    np.testing.assert_allclose(result.mean_error_se, mean_se, rtol=0.1)
    np.testing.assert_allclose(result.sd_ratio_se, sd_se, rtol=0.1)


def test_draws_that_never_moved_and_too_few_draws():
    posterior = CASES["regression"]()
    stuck = posterior.compare({"beta": np.tile(posterior.mean["beta"], (2, 50, 1))})
    np.testing.assert_array_equal(stuck.sd_ratio, 0.0)
    np.testing.assert_array_equal(stuck.ess, 1.0)
    assert stuck.kl == np.inf
    assert posterior.compare(pick(posterior.sample(jax.random.key(12), N), slice(3))).kl == np.inf
    assert "nan" in str(stuck)


# Holders of draws


def test_chains_are_recognised_and_the_report_prints():
    posterior = CASES["unknown_noise"]()
    draws = pick(posterior.sample(jax.random.key(13), N), slice(400))
    folded = {k: v.reshape((4, 100, *v.shape[1:])) for k, v in draws.items()}
    one = posterior.compare({**draws, "another": np.zeros(3)})
    four = posterior.compare(folded)
    assert (one.num_chains, one.num_draws, four.num_chains, four.num_draws) == (1, 400, 4, 100)
    np.testing.assert_allclose(one.mean_error, four.mean_error, atol=1e-12)
    np.testing.assert_allclose(one.ks, four.ks)
    assert "One chain only" in str(one) and "One chain only" not in str(four)
    lines = str(four).splitlines()
    assert all(any(line.lstrip().startswith(name) for line in lines) for name in posterior.names)
    assert json.loads(json.dumps(four.to_dict()))["ks"] == four.ks.tolist()
    assert four.to_dict()["kl"] is None and four.to_dict()["names"] == list(posterior.names)


@pytest.mark.slow
def test_numpyro_and_arviz_objects():
    posterior = exact.GammaPoisson(num_data=20)
    mcmc = MCMC(
        NUTS(posterior.model),
        num_warmup=200,
        num_samples=300,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    with pytest.raises(ValueError, match="`samples` has not been run"):
        posterior.compare(mcmc)
    mcmc.run(jax.random.key(14), *posterior.data)
    direct = posterior.compare(mcmc)
    assert (np.abs(direct.mean_error) < 4.5 * direct.mean_error_se).all()
    assert direct.num_chains == 2
    groups = {"posterior": {"rate": mcmc.get_samples(group_by_chain=True)["rate"]}}
    # ArviZ before 1.0 takes the groups as keywords and gives InferenceData, later a DataTree.
    as_keywords = "posterior" in inspect.signature(az.from_dict).parameters
    data = az.from_dict(**groups) if as_keywords else az.from_dict(groups)
    np.testing.assert_allclose(posterior.compare(data).mean_error, direct.mean_error)
    np.testing.assert_allclose(posterior.compare(data["posterior"]).mean_error, direct.mean_error)


# Refused input

X3, Y3 = [[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0]
REGRESSIONS = [exact.LinearRegression, exact.LinearRegressionUnknownNoise]


@pytest.mark.parametrize("family", REGRESSIONS)
@pytest.mark.parametrize(
    ("args", "settings", "message"),
    [
        (([[1.0], [np.nan], [np.inf]], Y3), {}, r"`X` has NaN or infinite values in 2 of 3 rows"),
        ((X3, [1.0, np.nan, 3.0]), {}, r"`y` has NaN or infinite values in 1 of 3 rows"),
        ((X3, Y3[:2]), {}, r"`X` has 3 rows, `y` has 2 rows"),
        ((Y3, Y3), {}, r"`X` has shape \(3,\)"),
        ((X3, X3), {}, r"`y` has shape \(3, 1\)"),
        ((X3, ["a", "b", "c"]), {}, r"`y` must be an array of real numbers"),
        ((np.zeros((0, 1)), []), {}, r"`X` is empty"),
        ((X3, Y3), {"prior_scale": 0.0}, r"`prior_scale` must be positive"),
        ((X3, Y3), {"prior_scale": [1.0, 2.0]}, r"`prior_scale` has shape \(2,\)"),
        ((X3, Y3), {"prior_mean": np.nan}, r"`prior_mean` has NaN"),
    ],
)
def test_regressions_refuse(family, args, settings, message):
    with pytest.raises(ValueError, match=message):
        family.from_data(*args, **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.LinearRegression.from_data(X3, Y3, noise_scale=-1.0), "`noise_scale` must"),
        (lambda: exact.LinearRegressionUnknownNoise.from_data(X3, Y3, a0=0.0), "`a0` must"),
        (lambda: exact.LinearRegressionUnknownNoise.from_data(X3, Y3, b0=-2.0), "`b0` must"),
        (lambda: exact.LinearRegressionUnknownNoise.from_data(X3, Y3, a0=0.5), "`a0` = 0.5 with 3"),
        (lambda: exact.LinearRegression(correlation=1.0), "`correlation` is 1"),
        (lambda: exact.LinearRegression(num_data=0), "`num_data` must be at least 1"),
        (lambda: exact.GaussianMean(dim=-1), "`dim` must be at least 1"),
        (
            lambda: exact.GaussianMean.from_data([1.0, np.inf]),
            "`y` has NaN or infinite values in 1",
        ),
        (lambda: exact.GaussianMean.from_data(Y3, noise_scale=0.0), "`noise_scale` must"),
        (lambda: exact.GaussianMean.from_data(Y3, prior_scale=-1.0), "`prior_scale` must"),
        (
            lambda: exact.GaussianMean.from_data(np.ones((3, 2)), noise_covariance=-np.eye(2)),
            "`noise_covariance` is not positive definite",
        ),
        (
            lambda: exact.GaussianMean.from_data(
                np.ones((3, 2)), noise_covariance=[[1, 2], [0, 9]]
            ),
            "`noise_covariance` is not symmetric",
        ),
        (
            lambda: exact.GaussianMean.from_data(np.ones((3, 2)), noise_covariance=np.eye(3)),
            r"`noise_covariance` has shape \(3, 3\)",
        ),
        (lambda: exact.BetaBernoulli.from_data([0, 1, 2]), "`y` must hold 0 or 1; 1 of 3"),
        (lambda: exact.BetaBernoulli.from_data([0.5]), "`y` must hold 0 or 1"),
        (lambda: exact.BetaBernoulli.from_data([0, np.nan]), "`y` has NaN"),
        (lambda: exact.BetaBernoulli.from_data([0, 1], a0=0.0), "`a0` must be positive"),
        (lambda: exact.BetaBernoulli.from_data([0, 1], b0=-1.0), "`b0` must be positive"),
        (lambda: exact.BetaBernoulli(probability=1.5), "`probability` is 1.5"),
        (lambda: exact.GammaPoisson.from_data([1, -2, 3]), "`y` must hold whole numbers"),
        (lambda: exact.GammaPoisson.from_data([1.5, 2.0]), r"first is 1.5"),
        (lambda: exact.GammaPoisson.from_data([3e9]), "whole numbers from 0 to 2147483647"),
        (lambda: exact.GammaPoisson.from_data([[1, 2]]), r"`y` has shape \(1, 2\)"),
        (lambda: exact.GammaPoisson.from_data([1], a0=0.0), "`a0` must be positive"),
        (lambda: exact.GammaPoisson.from_data([1], b0=np.inf), "`b0` has NaN or infinite"),
        (lambda: exact.GammaPoisson(rate=0.0), "`rate` must be positive"),
    ],
)
def test_constructors_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_own_arrays_in_place_of_a_key_point_to_from_data():
    with pytest.raises(TypeError, match=r"`key` must be one JAX key.*LinearRegression.from_data"):
        exact.LinearRegression(np.ones((3, 1)))
    with pytest.raises(TypeError, match="`key` must be one JAX key"):
        exact.BetaBernoulli(7)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"sigma2": np.ones(9)}, r"`samples` has no site \['beta'\]"),
        (
            {"beta": np.ones((9, 3)), "sigma2": np.ones(9)},
            r"`samples\['beta'\]` has shape \(9, 3\)",
        ),
        ({"beta": np.ones(2), "sigma2": np.ones(9)}, r"`samples\['beta'\]` has shape \(2,\)"),
        ({"beta": np.ones((9, 2)), "sigma2": np.ones(8)}, "different .chains, draws."),
        ({"beta": np.ones((1, 2)), "sigma2": np.ones(1)}, "1 chains of 1 draws"),
        (
            {"beta": np.ones((9, 2)), "sigma2": np.array([1.0, np.nan, np.inf] * 3)},
            r"`samples\['sigma2'\]` has NaN or infinite values in 6 of 9 draws",
        ),
        ({"beta": [["a", "b"]] * 9, "sigma2": np.ones(9)}, r"`samples\['beta'\]` must hold real"),
    ],
)
def test_compare_refuses(samples, message):
    with pytest.raises(ValueError, match=message):
        CASES["unknown_noise"]().compare(samples)


def test_other_methods_refuse():
    posterior = CASES["unknown_noise"]()
    with pytest.raises(TypeError, match="`samples` is a ndarray"):
        posterior.compare(np.ones((9, 3)))
    with pytest.raises(TypeError, match="`n` must be an integer"):
        posterior.sample(jax.random.key(0), 2.5)
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        posterior.sample(jax.random.key(0), 0)
    with pytest.raises(TypeError, match="`key` is None"):
        posterior.sample(None, 5)
    with pytest.raises(ValueError, match=r"`name` 'beta' is not a scalar.*beta\[0\]"):
        posterior.marginal_cdf("beta", 0.0)
    with pytest.raises(ValueError, match=r"`position` has no site \['sigma2'\]"):
        posterior.log_prob({"beta": np.zeros(2)})
    with pytest.raises(ValueError, match=r"`position\['beta'\]` has shape \(3,\)"):
        posterior.log_prob({"beta": np.zeros(3), "sigma2": 1.0})
    with pytest.raises(ValueError, match="`position` has different leading axes"):
        posterior.log_prob({"beta": np.zeros((4, 2)), "sigma2": 1.0})
    with pytest.raises(TypeError, match="`position` is a ndarray"):
        posterior.log_prob(np.zeros(3))
