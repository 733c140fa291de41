"""The comparison of draws with exact posteriors, against closed-form distances."""

import inspect
import itertools
import json

import arviz as az
import jax
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS
from posteriors import CASES, FAMILIES, N, pick
from scipy import integrate, stats

from sgworld_mcmc import exact
from sgworld_mcmc.exact.compare import compare
from sgworld_mcmc.exact.marginal import wasserstein_distance, wasserstein_noise

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


@pytest.mark.slow
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
