"""The speed benchmark's own parts: its truth, its clocks' arithmetic, its table."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from sgworld_benchmarks import laplace, speed
from sgworld_benchmarks.accuracy.problem import exact_problem
from sgworld_benchmarks.accuracy.score import Score
from sgworld_benchmarks.speed import problems
from sgworld_benchmarks.speed.nuts import run_nuts_extrapolated
from sgworld_benchmarks.speed.timing import Criterion, Timing, table
from sgworld_mcmc import exact
from sgworld_mcmc.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def problem():
    """Student-t and inverse-gamma marginals."""
    return exact_problem("small", exact.LinearRegressionUnknownNoise(jax.random.key(0), 40, 2))


@pytest.fixture(scope="module")
def approximation(problem):
    return laplace.fit(problem)


@pytest.mark.parametrize("df", [None, 8.0])
def test_importance_sampling_agrees_with_the_exact_posterior(problem, approximation, df):
    key = jax.random.key(1)
    found, k_hat = laplace.importance_moments(approximation, problem, key, 20_000, df)
    truth = problem.exact
    assert found.names == truth.names and k_hat < 0.6
    assert np.abs((found.mean - truth.mean) / found.mean_se).max() < 4.5
    assert np.abs((found.sd - truth.sd) / found.sd_se).max() < 4.5
    assert np.all(found.ess > 5000) and np.all(found.mean_se / found.sd < 0.015)
    # The approximation itself is visibly elsewhere: the weights are needed.
    draws = laplace.draws_of(approximation, key, 20_000)["sigma2"]
    assert abs(draws.mean() - truth.mean[-1]) > 10 * found.mean_se[-1]


def test_no_reference_from_bad_weights(problem, monkeypatch):
    monkeypatch.setattr(problems.laplace, "fit", lambda _: None)
    monkeypatch.setattr(problems.laplace, "importance_moments", lambda *_: (problem.exact, 0.9))
    with pytest.raises(ValueError, match=r"no reference of 'small': k-hat 0.90"):
        problems.truth("small", problem._replace(exact=None), 1000)


def test_nuts_extrapolated(problem):
    """Leapfrogs of a real run times the seconds of a gradient, and nothing else."""
    first, usual = run_nuts_extrapolated(
        problem, problem, problem.exact, Criterion(0.3, 0.3), jax.random.key(2), warmup=200
    )
    for timing in (first, usual):
        details = timing.details
        leapfrogs = details["warmup_leapfrogs"] + details["draw_leapfrogs"]
        assert details["draws"] % 50 == 0 and leapfrogs > 2 * (200 + details["draws"])
        assert timing.seconds == pytest.approx(leapfrogs * details["gradient_seconds"])
        assert timing.met and timing.score.within(0.3, 0.7, 1.3)
        assert "EXTRAPOLATED" in timing.note and str(leapfrogs) in timing.note
    assert usual.details["draws"] == 1000 > first.details["draws"]


def line(label, seconds, mean_error, rate):
    one = np.ones(2)
    found = Score(("a", "b"), one * mean_error, 0.01 * one, one, 0.01 * one, 500 * one)
    met = Criterion(0.1, 0.1).met(found)
    return Timing(label, seconds, met, found, rate, "", {"settings": {}})


def test_table_says_what_was_not_met():
    fair = table([line("SGWORLD, defaults", 2.0, 0.05, 100.0), line("NUTS", 50.0, 0.09, 4.0)])
    assert "25 times less seconds, 25 times the effective draws" in fair and "NO" not in fair
    unmet = table([line("SGWORLD, defaults", 2.0, 0.2, 100.0), line("NUTS", 50.0, 0.3, 4.0)])
    assert "SGWORLD does NOT meet the criterion" in unmet and "a lower bound" in unmet


def test_examples_per_effective_draw():
    mcmc = SimpleNamespace(num_chains=4, num_samples=1000)
    timing = line("SGWORLD", 1.0, 0.0, None)
    assert speed.examples_per_effective_draw(mcmc, timing) is None
    timing.details["settings"].update(batch_size=50.0, steps_per_draw=3.0)
    assert speed.examples_per_effective_draw(mcmc, timing) == 4000 * 3 * 50 / 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "0"], "`scale` is 0"),
        (["--scale", "0.1", "--store"], "`store`"),
        (["--parts", "logistics"], "invalid choice"),
        (["--reference-draws", "5"], "`reference_draws`"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "speed", *arguments])
    assert message in capsys.readouterr().err
