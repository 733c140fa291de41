"""Benchmarks of the bias, of efficiency at equal bias, and of the chooser, at tiny sizes."""

import json
from functools import partial

import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size

from sgworld_benchmarks import bias, chooser, efficiency, regimes
from sgworld_benchmarks.bias_plot import plot_bias
from sgworld_benchmarks.repeated_runs import Moments, effective_draws, moments
from sgworld_mcmc import exact
from sgworld_mcmc.cli import main
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.setup.choose import Choice
from sgworld_mcmc.setup.predict import Prediction

pytestmark = pytest.mark.slow


def test_efficiency_at_equal_bias():
    """105 rows in 11 batches, so that some have one row more."""
    result = efficiency.run(
        num_data=105, batch_size=10, dim=1, tolerance=0.02, chains=64, draws=300, num_orders=100
    )
    sgld, sgworld = result.samplers
    for sampler in result.samplers:
        assert sampler.bias == pytest.approx(0.02, rel=0.01)
        # The package aims at the same error, knowing the batches' noise on average only.
        assert sampler.chosen_bias == pytest.approx(0.02, rel=0.7)
        assert abs(sampler.measured_bias - 0.02) < 4.5 * sampler.measured_bias_se
        error = 3 / np.sqrt(sampler.effective / 10)  # of an autocorrelation time
        assert sampler.epochs == pytest.approx(sampler.predicted_epochs, rel=0.1 + error)
    assert result.ratio == sgld.epochs / sgworld.epochs
    assert 5 < result.ratio < 40 and f"{result.ratio:.1f}" in result.table()


def test_terms_of_the_batches_add_up_to_the_posterior():
    """Their mean is the full gradient in whitened coordinates: H = I and r = 0 at the mode."""
    X, y = np.random.default_rng(0).normal(size=(23, 2)), np.arange(23) / 10
    posterior = exact.LinearRegression.from_data(X, y, noise_scale=0.7, prior_scale=0.5)

    feed = FixedPartition(
        tuple(np.reshape(x[:20], (5, 4, *x.shape[1:])) for x in posterior.data),
        tuple(x[20:, None] for x in posterior.data),
    )
    root = np.linalg.cholesky(posterior.covariance)
    matrices, offsets = efficiency.batch_terms(root, feed, posterior)
    assert matrices.shape == (5, 2, 2) and np.ptp(matrices[:, 0, 0]) > 0.1
    np.testing.assert_allclose(matrices.mean(0), np.eye(2), atol=1e-10)
    np.testing.assert_allclose(offsets.mean(0), 0, atol=1e-10)


@pytest.fixture(scope="module")
def points():
    return bias.run(
        targets=("counts",), kinds=bias.KINDS[:1], errors=(0.1,), chains=64, draws=150, partitions=4
    )


def test_measured_bias_is_the_predicted_one(points):
    """The measurement is sharp enough to tell 10 % from nothing, and it tells."""
    (point,) = points
    assert point.kind == "SGWORLD, plain" and point.parameter == "rate"
    assert point.predicted == pytest.approx(0.1, rel=0.1)
    assert point.verdict != "OFF" and point.held == point.parameters == 1
    assert point.measured > 2 * point.error > 0


def test_exact_variances_of_the_unconstrained_parameters():
    generator = np.random.default_rng(0)
    for label in ("unknown-noise", "counts"):
        target = bias.TARGETS[label]()
        for name, variance in zip(target.posterior.names, target.variance, strict=True):
            exactly = target.posterior.marginal(name).distribution
            draws = exactly.rvs(size=20_000, random_state=generator)
            free = draws if name.startswith("beta") else np.log(draws)
            assert free.var() / variance == pytest.approx(1, abs=0.06), (target.label, name)


def test_verdicts(points):
    point = points[0]._replace(predicted=0.1, measured=0.14, error=0.001)
    assert point.verdict == "within"
    assert point._replace(measured=0.2, error=0.02).verdict == "noise"
    assert point._replace(measured=0.2, error=0.01).verdict == "OFF"
    assert point._replace(predicted=-0.1, measured=0.1, error=0.01).verdict == "OFF"
    text = bias.table([point, point._replace(measured=0.2)])
    assert "2 points: within: 1, noise: 0, OFF: 1" in text


def test_picture_of_the_bias(points, tmp_path):
    plot_bias([*points, points[0]._replace(measured=-0.01)], tmp_path / "bias.png", 1.5)
    assert (tmp_path / "bias.png").stat().st_size > 10_000


def test_chooser(capsys, tmp_path, monkeypatch):
    """On a small problem: what it prints and writes is what was measured."""
    small = {"batch_sizes": (20,), "gradients": ("taylor",), "step_sizes": (1.0, 0.2)}
    monkeypatch.setattr(chooser, "compare", partial(chooser.compare, **small))
    options = ["--chains", "64", "--draws", "200", "--out", str(tmp_path)]
    assert main(["benchmark", "chooser", "--sizes", "400,2", *options]) == 0
    (result,) = json.loads((tmp_path / "chooser.json").read_text())
    text = capsys.readouterr().out
    assert "chosen / best" in text and "taylor B=20 h=0.2" in text
    assert result["size"] == 400 and result["dimension"] == 2
    examples, error, error_se, shift, shift_se = result["chosen"][4:]
    assert 10 < examples < 800 and error < 0.02 + 3 * error_se and shift < 0.04 + 3 * shift_se
    # 2 / h steps for each effective draw: the grid is measured at the step sizes that it names.
    grid = {m[2]: m[4] for m in result["grid"] if m[0] == "taylor" and m[3] == "steps"}
    assert grid[1.0] == pytest.approx(2 * 20, rel=0.2)
    assert grid[0.2] == pytest.approx(10 * 20, rel=0.3)


def test_wrong_size_of_a_problem(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "chooser", "--sizes", "1000x5"])
    assert "pairs such as 1000,5" in capsys.readouterr().err


@pytest.mark.parametrize(("variance", "shift"), [(1.0, 0.0), (1.2, 0.1)])
def test_measured_error_is_free_of_noise(variance, shift):
    """The error is that of 50 parameters, each with a Monte Carlo error of 4 %."""
    generator = np.random.default_rng(1)
    draws = generator.normal(size=(40, 30, 50)) * np.sqrt(variance) + shift
    ones = np.ones(50)
    reference = Moments(0 * ones, 0 * ones, ones, 0 * ones)
    found = chooser._measured(("plain", 10, 1.0), "steps", draws, 3, reference)
    assert abs(found.error - (variance - 1)) < 3 * found.error_se < 0.1
    assert abs(found.shift - shift) < 3 * found.shift_se < 0.1
    assert found.examples == pytest.approx(30, rel=0.15)
    raw = np.sqrt(np.mean((moments(draws).variance - 1) ** 2))
    assert raw > found.error


def test_antithetic_draws_count_once():
    noise = np.random.default_rng(2).normal(size=(8, 201, 1))
    draws = noise[:, 1:] - 0.5 * noise[:, :-1]  # lag-one correlation -0.4
    assert effective_sample_size(draws)[0] > 3000
    ess = effective_draws(draws)
    np.testing.assert_array_equal(ess, 1600)


def test_best_of_the_grid_is_the_cheapest_that_is_as_good():
    chosen = chooser.Measured("taylor", 10, 1.0, "steps", 40.0, 0.01, 0.002, 0.01, 0.002)
    assert chosen.is_as_good(0.01, 0.01) and chosen.is_as_good(0.007, 0.007)
    assert not chosen.is_as_good(0.005, 0.01) and not chosen.is_as_good(0.01, 0.005)
    # Where a chain ran away nothing is known.
    assert not chosen._replace(shift_se=0.5).is_as_good(0.02, 0.04)
    result = chooser.Comparison(100, 2, chosen, chosen._replace(examples=25.0), (), 0)
    assert result.ratio == pytest.approx(1.6)
    assert result._replace(best=None).ratio == 1.0
    assert "nothing in the grid" in chooser.table([result._replace(best=None)])


def test_picture_of_the_regimes(tmp_path):
    prediction = Prediction(np.zeros(1), np.zeros(1), {})
    choices = {
        panel: Choice("plain", 10 * k, 10, 0.5, 2, "all_phases", 20.0 * k, prediction, True)
        for k, panel in enumerate(regimes.PANELS, 1)
    }
    found = [regimes.Regime(100, 2, choices), regimes.Regime(1000, 5, choices)]
    regimes.plot_regimes(found, tmp_path / "regimes.png")
    assert (tmp_path / "regimes.png").stat().st_size > 10_000
