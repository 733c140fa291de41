"""Every warning of a run is provoked through the public interface, and is shown to be true.

Warnings that other files provoke: divergence and sites left out in tests/infer/test_mcmc.py,
temperatures that still change in tests/infer/test_starts.py, models without minibatches in
tests/model/test_whole_data.py, interruption in tests/infer/test_interrupt.py, wasteful sparse rows
in tests/model/test_user_data.py.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD, TuningWarning
from sgworld_mcmc.setup import measurements, pilot_chains
from sgworld_mcmc.setup.step_error import unmeasured

pytestmark = [
    pytest.mark.slow,
    # A run may have more to say than the warning that a test is about.
    pytest.mark.filterwarnings("ignore::sgworld_mcmc.TuningWarning"),
]

KEY = jax.random.key(0)
Y = np.random.default_rng(0).normal(size=200).astype(np.float32)


def warned(match, model, *args, key=KEY, init_params=None, **settings):
    """Return the run, which must give a warning that the report repeats."""
    mcmc = SGWORLD(model, **settings)
    with pytest.warns(TuningWarning, match=match) as caught:
        mcmc.run(key, *args, init_params=init_params)
    report = str(mcmc.bias_report())
    said = [str(warning.message) for warning in caught if warning.category is TuningWarning]
    assert all(message[:60] in report for message in said)
    assert "Nothing to do" not in report
    return mcmc


def two_modes(y, scale=1.0):
    x = numpyro.sample("x", dist.Normal(0, 10))
    numpyro.sample("y", dist.Normal(jnp.abs(x), scale), obs=y)


def with_mean(y):
    """Data for a parameter of no interest, beside which the others have their prior."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def test_other_modes_are_never_visited():
    """The posterior is even in x: half of it is at the other mode."""
    mcmc = warned("has other modes, 14[0-9]", two_modes, Y + 5, num_samples=100)
    signs = np.sign(mcmc.get_samples()["x"])
    assert np.all(signs == signs[0])
    assert mcmc.plan.fit.other_modes[0] == pytest.approx(2 * 5 * np.sqrt(200), rel=0.05)


def test_chains_that_do_not_agree_are_at_different_modes():
    apart = {"x": np.array([5.0, -5.0])}
    settings = {"num_chains": 2, "num_samples": 100}
    mcmc = warned("chains do not agree", two_modes, Y + 5, init_params=apart, **settings)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    np.testing.assert_allclose(draws.mean(1), [5, -5], atol=0.3)


def test_few_draws_of_many_parameters_agree():
    """R-hat of 50 draws of 300 independent parameters is above 1.1 by chance, and says nothing."""

    def model(y):
        numpyro.sample("x", dist.Normal(0, 1).expand([300]).to_event(1))
        with_mean(y)

    mcmc = SGWORLD(model, num_samples=50, preconditioner="diagonal")
    mcmc.run(KEY, Y)
    assert np.abs(np.asarray(mcmc.get_samples()["x"]).std(0) - 1).max() < 0.4
    assert not any("do not agree" in note for note in mcmc.bias_report().notes)


def test_draws_that_spread_differently_visit_what_the_pilot_chains_did_not(monkeypatch):
    """Two modes, between which a chain changes now and then; the exact sd is that of a grid."""
    # Longer pilots, which cost next to nothing here, visit both.
    monkeypatch.setattr(pilot_chains, "LONGER", 1)
    y = 3.0 + 4 * (Y[:16] - Y[:16].mean())
    mcmc = warned("spread differently", two_modes, y, 4.0, num_samples=20_000)
    grid = np.linspace(-12, 12, 4001)
    log = -(grid**2) / 200 - ((y[:, None] - np.abs(grid)) ** 2).sum(0) / 32
    weight = np.exp(log - log.max())
    exact = np.sqrt((weight * grid**2).sum() / weight.sum())
    x = np.asarray(mcmc.get_samples()["x"])
    assert np.sqrt((x**2).mean()) == pytest.approx(exact, rel=0.05)
    plan = mcmc.plan
    pilots = plan.fit.coordinates.to_model(plan.measurements.starts)
    assert pilots.std() < 0.8 * exact


def test_draws_far_out_belong_to_a_heavy_tail():
    def model(y):
        numpyro.sample("x", dist.StudentT(2.0, 0.0, 1.0))
        with_mean(y)

    match = "Some draws lie [0-9]+ standard deviations"
    mcmc = warned(match, model, Y[:50], num_samples=16_000)
    # The exact distribution has draws that far: 1 of 2500 is beyond 35.
    x = np.abs(np.asarray(mcmc.get_samples()["x"]))
    assert x.max() > 20
    assert (x > 10).mean() == pytest.approx(0.00985, rel=0.6)


def test_a_few_draws_make_up_the_standard_deviation_of_a_lognormal():
    """The sd of two runs differs by about what is said; medians do not differ."""

    def model(y):
        numpyro.sample("s", dist.LogNormal(0.0, 1.5))
        with_mean(y)

    match = r"make up the standard deviation of s \(± "
    runs = [warned(match, model, Y, key=jax.random.key(seed)) for seed in range(2)]
    draws = [np.asarray(mcmc.get_samples()["s"]) for mcmc in runs]
    exact = np.sqrt((np.exp(1.5**2) - 1) * np.exp(1.5**2))
    assert max(abs(s.std() / exact - 1) for s in draws) > 0.1
    assert all(abs(np.log(np.median(s))) < 0.15 for s in draws)


def test_lost_pilot_chains_are_those_of_a_banana():
    """The posterior of (a, b) is bent along b = 100 a^2, and its ends are hardly reached.

    In so many dimensions no Gaussian is fitted to the posterior, about which none might be lost.
    """

    def model(y):
        numpyro.sample("others", dist.Normal(0, 1).expand([300]).to_event(1))
        a = numpyro.sample("a", dist.Normal(0, 1))
        b = numpyro.sample("b", dist.Normal(0, 100))
        numpyro.sample("y", dist.Normal(b - 100 * a**2, 1), obs=y)

    mcmc = warned("of the pilot chains were lost", model, Y, num_samples=100)
    grid = np.linspace(-4, 4, 4001)
    weight = np.exp(-(grid**2) / 2 - (Y.mean() + 100 * grid**2) ** 2 / (2 * (1e4 + 1 / 200)))
    exact = np.sqrt((weight * grid**2).sum() / weight.sum())
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["a"])
    assert np.ptp(draws.mean(1)) > exact or abs(draws.std() / exact - 1) > 0.2


def test_single_precision_is_too_coarse_where_draws_lie_on_a_grid():
    prior = np.full(2, 1e4)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(prior, 10.0).to_event(1))
        numpyro.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)

    y = prior + np.random.default_rng(0).normal(size=(10_000, 2))
    mcmc = warned("Single precision is too coarse", model, y, num_samples=200)
    mu = np.asarray(mcmc.get_samples()["mu"])
    spacing = np.min(np.diff(np.unique(mu[:, 0])))
    assert spacing > 0.05 * mu[:, 0].std()


def rare_counts(y):
    x = numpyro.sample("x", dist.Normal(0, 3))
    numpyro.sample("y", dist.Poisson(jnp.exp(x)), obs=y)


COUNTS = np.zeros(20, np.float32)
COUNTS[:2] = 1


def test_a_prediction_that_is_wrong_is_contradicted(monkeypatch):
    """The error of the step is taken to be zero, as on a Gaussian: the draws are then too wide."""
    settings = {"num_samples": 20_000}
    right = SGWORLD(rare_counts, **settings)
    right.run(KEY, COUNTS)
    assert right.bias_report().disagreement() is None
    monkeypatch.setattr(
        measurements, "fit_discretisation", lambda pilots, *_: unmeasured(len(pilots[0].mean))
    )
    wrong = warned("Prediction and measurement disagree", rare_counts, COUNTS, **settings)
    grid = np.linspace(-20, 5, 10_001)
    log = -(grid**2) / 18 + 2 * grid - 20 * np.exp(grid)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    exact = np.sqrt((weight * grid**2).sum() - (weight * grid).sum() ** 2)
    assert np.std(right.get_samples()["x"]) == pytest.approx(exact, rel=0.02)
    assert np.std(wrong.get_samples()["x"]) > 1.025 * exact


def test_a_tolerance_that_no_setting_meets_is_said():
    """The smallest step has a larger error, and its chains hardly move from where they start."""

    def twenty_counts(y):
        x = numpyro.sample("x", dist.Normal(0, 3).expand([20]).to_event(1))
        numpyro.sample("y", dist.Poisson(jnp.exp(x)).to_event(1), obs=y)

    mcmc = warned(
        r"tolerance 1e-30 could not be met: .* accept a larger `tolerance`",
        twenty_counts,
        np.tile(COUNTS[1:, None], (1, 20)),
        tolerance=1e-30,
        num_samples=20,
    )
    choice, x = mcmc.plan.choice, np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    assert choice.prediction.worst() > 1e-30
    assert np.all(np.ptp(x, axis=1) < 0.1)


def test_a_row_of_large_leverage_does_not_throw_draws_out(monkeypatch):
    """Its batch, one of 400, throws chains out if its estimate has no bound."""

    def model(X, y):
        b = numpyro.sample("b", dist.Normal(0, 2.5).expand([4]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=X @ b), obs=y)

    generator = np.random.default_rng(0)
    X = generator.normal(size=(4000, 4)).astype(np.float32)
    y = (generator.uniform(size=4000) < 1 / (1 + np.exp(-X.sum(1) / 2))).astype(np.float32)
    X[7] = 27 * np.array([1, -1, 0.5, -0.5])
    settings = {"gradient": "taylor", "batch_size": 10, "step_size": 0.5}

    def farthest():
        mcmc = SGWORLD(model, **settings)
        mcmc.run(KEY, X, y)
        return np.abs(mcmc.draws().positions).max()

    assert farthest() < 12
    monkeypatch.setattr("sgworld_mcmc.gradients.taylor.Taylor.bounded", lambda _, x, reach: x)
    assert farthest() > 25


def test_draws_along_a_soft_direction_are_not_far_away():
    """Coordinates that know no correlations have directions 22 times as wide as the axes."""

    def model(y):
        a, b = numpyro.sample("a", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(a + b, 1), obs=y)

    y = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    mcmc = SGWORLD(model, preconditioner="diagonal", num_samples=1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mcmc.run(KEY, y)
    assert np.abs(mcmc.draws().positions).max() > 50
    assert abs(mcmc.get_samples()["a"].std() / np.sqrt(0.5) - 1) < 0.15
    assert not [each.message for each in caught if issubclass(each.category, TuningWarning)]
