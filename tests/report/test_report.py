"""What a run says of its own bias: the report, and the warnings that come unasked."""

import warnings

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD, TuningWarning, exact
from sgworld_mcmc.report import make_report
from sgworld_mcmc.report.check import Check
from sgworld_mcmc.report.controlled_means import mean_and_error

KEY = jax.random.key(0)
TARGET = exact.LinearRegression(jax.random.key(1), num_data=400, dim=3, correlation=0.5)


@pytest.fixture(scope="module")
def mcmc():
    run = SGWORLD(TARGET.model, num_samples=500)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TuningWarning)  # nothing to say of a Gaussian
        run.run(KEY, *TARGET.data)
    return run


@pytest.fixture(scope="module")
def report(mcmc):
    return mcmc.bias_report(control=True)


def test_prediction_is_within_the_tolerance_and_agrees_with_what_is_measured(report):
    assert report.names == ("beta[0]", "beta[1]", "beta[2]")
    assert np.abs(report.predicted_variance_error).max() <= 0.02
    assert np.abs(report.predicted_mean_shift).max() <= 0.04
    np.testing.assert_allclose(sum(report.parts.values()), report.predicted_variance_error)
    stein, control = report.stein, report.control
    deviation = stein.variance_error - report.predicted_variance_error
    assert np.all(np.abs(deviation) < 4.5 * stein.variance_error_se)
    assert np.all(np.abs(stein.mean_shift) < 4.5 * stein.mean_shift_se)
    # sqrt(2 / n) from all n draws, twice as many as have gradients; where that of the 4 chains is
    # larger, it has 3 degrees of freedom: 2.3 times as large in one case of a thousand.
    least = np.sqrt(2 / (2 * stein.draws))
    assert np.all(stein.variance_error_se >= 0.99 * least)
    assert np.all(stein.variance_error_se < 2.3 * least)
    assert np.median(stein.variance_error_se) < 0.06
    change = control.variance_error - report.predicted_change
    assert np.all(np.abs(change) < 4.5 * control.variance_error_se)


def test_text_tells_settings_predictions_and_what_to_do(report):
    text = str(report)
    words = ("step size", "tolerance 0.02", "beta[2]", "Stein identity", "Half-step control run")
    assert all(word in text for word in words)
    assert "Detailed balance" in text and "Nothing to do" in text


def _measured(error, error_se):
    zero = np.zeros(3)
    return Check("Stein identity", np.array(error), np.array(error_se), zero, zero + 0.01, 1000)


def test_disagreement_names_the_parameter_that_is_off_beyond_its_error(report):
    """Not the one that is further off and less certain."""
    wrong = report._replace(stein=_measured([0.0, 0.3, 0.5], [0.02, 0.02, 0.3]))
    assert "+30.0%" in wrong.disagreement() and "for beta[1]" in wrong.disagreement()
    assert "Do not trust" in str(wrong) and "Nothing to do" not in str(wrong)
    assert report._replace(stein=_measured([0.05, 0.3, 0.5], 3 * [0.12])).disagreement() is None


def test_a_run_says_unasked_and_once_that_it_contradicts_its_prediction(mcmc, monkeypatch):
    wrong = _measured([0.0, 0.3, 0.0], 3 * [0.02])
    monkeypatch.setattr(make_report, "stein_check", lambda *_, **__: wrong)
    with pytest.warns(TuningWarning, match=r"disagree: the Stein identity.*beta\[1\]"):
        mcmc.run(KEY, *TARGET.data)
    mcmc.post_warmup_state = mcmc.last_state
    with warnings.catch_warnings():
        warnings.simplefilter("error", TuningWarning)
        mcmc.run(mcmc.last_state.rng_key, *TARGET.data)
    mcmc.post_warmup_state = None


def test_no_error_below_that_of_a_gaussian():
    """Few draws that happen to lie close together look more certain than they are."""
    draws = np.full((4, 8, 1), 0.1) + 0.01 * np.random.default_rng(0).normal(size=(4, 8, 1))
    _, error = mean_and_error(draws**2, np.sqrt(2))
    assert error == pytest.approx(0.25)


def test_settings_that_cannot_meet_the_tolerance_are_said(mcmc):
    """The Euler error of h = 1 is 100 % of the variance, whatever else is chosen."""
    coarse = SGWORLD(TARGET.model, num_samples=50, noise="independent", step_size=1.0)
    coarse.sampler.share(mcmc.sampler)
    with pytest.warns(TuningWarning, match=r"tolerance 0.02 could not be met.*error is 1[ .]"):
        coarse.run(KEY, *TARGET.data)
    assert "exceeds the tolerance" in str(coarse.bias_report())


def test_an_error_above_the_tolerance_has_a_cure_that_can_be_taken(mcmc):
    """Nobody can leave to the package what the package has chosen."""
    report = mcmc.bias_report()
    assert report.excess() is None
    larger = report._replace(predicted_variance_error=report.predicted_variance_error + 0.1)
    assert "Halve `tolerance`" in larger.excess() and "leave the" not in larger.excess()
    assert "leave the settings to the package" in larger._replace(fixed=True).excess()
    assert "Nothing to do" not in str(larger)


def test_a_predicted_shift_that_a_measurement_excludes_is_no_warning(mcmc):
    report = mcmc.bias_report()
    shift = np.array([0.0, 0.2, 0.0])
    assert (
        "mean of beta[1], 0.20 sd"
        in report._replace(predicted_mean_shift=shift, stein=None).excess()
    )
    stein = _measured(3 * [0.0], 3 * [0.02])
    assert report._replace(predicted_mean_shift=shift, stein=stein).excess() is None
    stein = stein._replace(mean_shift_se=np.full(3, 0.06))
    assert report._replace(predicted_mean_shift=shift, stein=stein).excess() is not None


@pytest.mark.slow
def test_a_funnel_is_said_to_be_one():
    def model(y, group):
        scale = numpyro.sample("scale", dist.HalfCauchy(5.0))
        effect = numpyro.sample("effect", dist.Normal(0, scale).expand([8]).to_event(1))
        numpyro.sample("y", dist.Normal(effect[group], 10.0), obs=y)

    y = np.random.default_rng(0).normal(size=40).astype(np.float32)  # no effect at all
    run = SGWORLD(model, num_samples=200)
    with pytest.warns(TuningWarning, match="No usable posterior mode.*non-centred"):
        run.run(KEY, y, np.arange(40) % 8)
